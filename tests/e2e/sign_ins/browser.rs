//! Sign-ins by a browser, which the tests play: it comes back to a loopback port by itself, or its last address is pasted.

use std::sync::Arc;

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sandbox::DEFAULT_CLIENT_ID;
use url::Url;

use super::people::{ADMIN, people, stored, submit};
use super::terminal::Terminal;
use crate::harness::{SENDER, World};

/// A browser that trusts the simulated Entra.
pub(crate) fn browser(world: &World, policy: Policy) -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.sandbox.ca_pem().as_bytes()).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(policy).no_proxy().build().unwrap()
}

/// Where a browser ends that cannot open the relay's port: that address.
pub(crate) async fn last_address(world: &World, link: &str) -> Url {
    let reply = browser(world, Policy::none()).get(link).send().await.unwrap();
    assert_eq!(reply.status(), 302);
    Url::parse(reply.headers()["location"].to_str().unwrap()).unwrap()
}

fn people_sign_in_as(world: &World, user: &str) {
    world.sandbox.change_conditions(|conditions| conditions.browser_user = Some(user.to_owned()));
}

fn value(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_comes_back_by_itself() {
    for with_daemon in [true, false] {
        let world = people().await;
        people_sign_in_as(&world, SENDER);
        let relay = if with_daemon { Some(world.relay().await) } else { None };
        let terminal = Terminal::browser(&world, "scanner");
        let link = terminal.link();
        let url = Url::parse(&link).unwrap();
        assert_eq!(
            (value(&url, "client_id"), value(&url, "login_hint")),
            (DEFAULT_CLIENT_ID.to_owned(), SENDER.to_owned())
        );
        // What a browser asks for besides, and what does not belong to this sign-in, does no harm.
        let (home, visitor) = (value(&url, "redirect_uri"), browser(&world, Policy::limited(3)));
        for (path, status) in [("/favicon.ico", 404), ("/", 404), ("/?code=x&state=y", 400), ("/?x=y", 400)] {
            assert_eq!(visitor.get(format!("{home}{path}")).send().await.unwrap().status(), status, "{path}");
        }
        let reply = visitor.get(&link).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert!(reply.text().await.unwrap().contains("goes on in the terminal"));
        let ended = terminal.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.screen.contains("this address belongs to another sign-in"), "{}", ended.screen);
        assert_eq!(stored(&world, SENDER).unwrap().account.as_deref(), Some(SENDER));
        let relay = if let Some(relay) = relay { relay } else { world.relay().await };
        submit(&relay, SENDER, "first").await;
        assert_eq!(world.wait_for(1).await[0].login, SENDER);
        assert_eq!(world.sandbox.counters().authorization_code_requests, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_address_of_a_browser_elsewhere_can_be_pasted() {
    for with_daemon in [true, false] {
        let world = people().await;
        people_sign_in_as(&world, SENDER);
        let relay = if with_daemon { Some(world.relay().await) } else { None };
        let mut terminal = Terminal::browser(&world, "scanner");
        let address = last_address(&world, &terminal.link()).await;
        let forged = address.as_str().replace(&value(&address, "state"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        for (text, told) in [
            ("", None),
            ("what is this?", Some("this is not the address that the browser ended at")),
            ("https://login.example/", Some("this is not the address that the browser ended at")),
            (&forged, Some("this address belongs to another sign-in")),
        ] {
            let before = terminal.screen.count(|line| told.is_some_and(|told| line.contains(told)));
            terminal.enter(text);
            if let Some(told) = told {
                terminal.screen.wait_for_another(before, |line| line.contains(told));
            }
        }
        assert_eq!(world.sandbox.counters().token_requests, 0);
        terminal.enter(&format!("  {address}  "));
        let ended = terminal.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let complaints = ended.screen.lines().filter(|line| line.starts_with("xoauth2-relay: "));
        assert_eq!(complaints.count(), 3, "{}", ended.screen);
        assert_eq!(stored(&world, SENDER).unwrap().user, SENDER);
        drop(relay);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_declines_at_the_page_ends_it() {
    for (with_daemon, is_pasted) in [(true, false), (false, false), (true, true)] {
        let world = people().await;
        let relay = if with_daemon { Some(world.relay().await) } else { None };
        let mut terminal = Terminal::browser(&world, "scanner");
        let declines = format!("{}&sandbox_consent=0", terminal.link());
        if is_pasted {
            let address = last_address(&world, &declines).await;
            terminal.enter(address.as_str());
        } else {
            browser(&world, Policy::limited(3)).get(&declines).send().await.unwrap();
        }
        let ended = terminal.end().await;
        assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
        assert!(ended.screen.contains("the sign-in was refused: access_denied: AADSTS65004"), "{}", ended.screen);
        assert!(stored(&world, SENDER).is_none());
        assert_eq!(world.sandbox.counters().token_requests, 0);
        drop(relay);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_used_up_or_of_somebody_without_access_stores_nothing() {
    let world = people().await;
    let _relay = world.relay().await;
    people_sign_in_as(&world, ADMIN);
    let terminal = Terminal::browser(&world, "scanner");
    browser(&world, Policy::limited(3)).get(terminal.link()).send().await.unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.screen.contains(&format!("Signed in by {ADMIN}.")), "{}", ended.screen);
    assert!(ended.screen.contains(&format!("AUTH XOAUTH2 as {SENDER} is not taken: 535 5.7.3")), "{}", ended.screen);
    assert!(stored(&world, SENDER).is_none(), "{ended:?}");
    people_sign_in_as(&world, SENDER);
    let mut terminal = Terminal::browser(&world, "scanner");
    let address = last_address(&world, &terminal.link()).await;
    world.sandbox.revoke_sign_ins(SENDER).unwrap();
    terminal.enter(address.as_str());
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.screen.contains("AADSTS9002313"), "{}", ended.screen);
    assert!(stored(&world, SENDER).is_none());
}
