//! The device authorization endpoint and the page on which a person enters the code (facts 4.5, RFC 8628). The polls
//! come to the token endpoint.

use serde::Serialize;

use super::page::{button, paragraph};
use super::{EntraError, Form, Page, Scopes, TokenRequest, find_application, find_tenant};
use crate::sign_ins::Device;
use crate::world::World;

/// Where a person enters the code.
pub(crate) const PAGE: &str = "/common/oauth2/deviceauth";
/// The short form of it.
pub(crate) const SHORT_PAGE: &str = "/devicelogin";

/// The 200 body; no `verification_uri_complete` (facts 4.5).
#[derive(Serialize)]
pub(crate) struct DeviceReply {
    user_code: String,
    device_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: u64,
    message: String,
}

/// Answers `POST /{tenant}/oauth2/v2.0/devicecode`. Whether the client may do so at all, it learns when it polls.
pub(crate) fn begin(world: &World, request: &TokenRequest<'_>) -> Result<DeviceReply, EntraError> {
    let form = request.form()?;
    let directory = &world.directory();
    let tenant = find_tenant(directory, request.tenant)?;
    let application = find_application(tenant, form.required("client_id")?, request.tenant)?;
    let scopes = Scopes::parse(form.required("scope")?)?;
    let conditions = world.conditions();
    let mut device = Device::new(&tenant.tenant_id, &application.client_id, scopes, world.clock.monotonic());
    device.lifetime = conditions.device_lifetime;
    device.interval = conditions.device_interval;
    world.sign_ins.keep_device(device.clone());
    let verification_uri = format!("{}{PAGE}", world.authority);
    Ok(DeviceReply {
        message: format!(
            "To sign in, use a web browser to open the page {verification_uri} and enter the code {} to authenticate.",
            device.user_code
        ),
        user_code: device.user_code,
        device_code: device.secret,
        verification_uri,
        expires_in: device.lifetime.as_secs(),
        interval: device.interval.as_secs(),
    })
}

/// Answers a person: `otc` is the code, then `user` signs in or `decline` does not.
pub(crate) fn page(world: &World, parameters: &[u8]) -> Page {
    let form = match Form::parse(parameters) {
        Ok(form) => form,
        Err(error) => return Page::error(&error),
    };
    let Some(code) = form.optional("otc").map(str::trim) else { return ask_for_code(None) };
    let now = world.clock.monotonic();
    let waiting = world.sign_ins.waiting(now);
    let Some(device) = waiting.iter().find(|device| device.user_code.eq_ignore_ascii_case(code)) else {
        return ask_for_code(Some("That code didn't work. Check the code and try again."));
    };
    let directory = world.directory();
    let Some(tenant) = directory.tenant(&device.tenant_id) else { return ask_for_code(None) };
    let decision = match (form.optional("user"), form.optional("decline")) {
        (_, Some(_)) => None,
        (Some(user), None) => match tenant.find_user(user) {
            Some(user) => Some(user),
            None => return Page::error(&EntraError::unknown_user(user, &tenant.tenant_id)),
        },
        (None, None) => {
            let mut parts = vec![paragraph("Do not enter codes from sources you don't trust. Pick an account.")];
            parts.extend(tenant.people().map(|user| button(&[("otc", code), ("user", user)], user)));
            parts.push(button(&[("otc", code), ("decline", "1")], "Decline"));
            return Page::html("Are you trying to sign in on another device?", &parts);
        }
    };
    match (world.sign_ins.decide(code, decision, now), decision) {
        (false, _) => ask_for_code(Some("That code didn't work. Check the code and try again.")),
        (true, Some(user)) => {
            Page::html("You have signed in", &[paragraph(&format!("The application may now send mail as {user}."))])
        }
        (true, None) => Page::html("You have declined", &[paragraph("The application was not let in.")]),
    }
}

fn ask_for_code(mistake: Option<&str>) -> Page {
    let form = "<form method=\"get\"><input name=\"otc\" autofocus> <button>Next</button></form>".to_owned();
    let parts: Vec<String> = mistake.map(paragraph).into_iter().chain([form]).collect();
    Page::html("Enter the code", &parts)
}
