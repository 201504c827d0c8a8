//! The token endpoint's failures: a row for each code of facts 4.6, and what is no answer of Entra's at all. Only the
//! codes are Microsoft's in every row; `error` and HTTP status are recorded for three codes, documented for some, and a
//! choice of ours where the facts leave them open, which the row says.

use std::time::Duration;

use super::{Class, Effect, Row};
use crate::{OddToken, Stage};

const fn entra(
    name: &'static str,
    class: Class,
    (status, error, code): (u16, &'static str, u32),
    message: &'static str,
    meaning: &'static str,
) -> Row {
    Row::at(Stage::Token, name, class, Effect::Entra { status, error, code, message }, meaning).facts("4.6").own_words()
}

const fn http(
    name: &'static str,
    class: Class,
    status: u16,
    retry_after: Option<u32>,
    body: &'static str,
    meaning: &'static str,
) -> Row {
    Row::at(Stage::Token, name, class, Effect::Http { status, retry_after, location: None, body }, meaning)
        .facts("none")
        .own_words()
}

const fn odd(name: &'static str, class: Class, odd: OddToken, meaning: &'static str) -> Row {
    Row::at(Stage::Token, name, class, Effect::OddToken(odd), meaning).facts("none")
}

/// Leads back to the endpoint, so that a client that follows is seen in the count of requests.
const fn redirect(name: &'static str, status: u16) -> Row {
    let location = Some("/common/oauth2/v2.0/token");
    let effect = Effect::Http { status, retry_after: None, location, body: "" };
    Row::at(Stage::Token, name, Class::Unusable, effect, "a redirect, which must not be followed with a secret")
        .facts("none")
        .own_words()
}

pub(super) const ROWS: &[Row] = &[
    entra(
        "token-7000215",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 7_000_215),
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
         not the client secret ID.",
        "the secret is wrong, often its id in place of its value",
    ),
    entra(
        "token-7000222",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 7_000_222),
        "The provided client secret keys are expired.",
        "the secret has expired",
    ),
    entra(
        "token-700027",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 700_027),
        "The certificate with identifier used to sign the client assertion is not registered on application.",
        "the key of the assertion was not found; try again some minutes after an upload",
    ),
    entra(
        "token-700024",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 700_024),
        "Client assertion is not within its valid time range.",
        "the assertion is outside its time; the clock is wrong",
    )
    .unproven(),
    entra(
        "token-50012",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 50_012),
        "Authentication failed.",
        "the certificate or assertion failed validation",
    )
    .unproven(),
    entra(
        "token-700016",
        Class::ConfigurationAtToken,
        (400, "unauthorized_client", 700_016),
        "Application was not found in the directory.",
        "the application is not in the tenant",
    ),
    entra(
        "token-700011",
        Class::ConfigurationAtToken,
        (400, "unauthorized_client", 700_011),
        "Application was not found.",
        "the application id was not found",
    )
    .unproven(),
    entra(
        "token-7000112",
        Class::ConfigurationAtToken,
        (400, "unauthorized_client", 7_000_112),
        "Application is disabled.",
        "the application is disabled",
    )
    .unproven(),
    entra(
        "token-70001",
        Class::ConfigurationAtToken,
        (400, "unauthorized_client", 70_001),
        "Application is disabled.",
        "the application is disabled",
    )
    .unproven(),
    entra(
        "token-7000218",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 7_000_218),
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        "neither secret nor assertion for a confidential client",
    ),
    entra(
        "token-700025",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 700_025),
        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
        "a public client sent a secret",
    )
    .unproven(),
    entra(
        "token-90002",
        Class::ConfigurationAtToken,
        (400, "invalid_request", 90_002),
        "Tenant not found. Check to make sure you have the correct tenant ID and are signing into the correct \
         cloud.",
        "there is no such tenant",
    ),
    entra(
        "token-90038",
        Class::ConfigurationAtToken,
        (400, "invalid_request", 90_038),
        "The tenant is in another national cloud.",
        "the tenant is in another national cloud",
    )
    .unproven(),
    entra(
        "token-900144",
        Class::ClientBug,
        (400, "invalid_request", 900_144),
        "The request body must contain the following parameter: 'grant_type'.",
        "a parameter of the body is missing",
    )
    .unproven(),
    entra(
        "token-70011",
        Class::ConfigurationAtToken,
        (400, "invalid_scope", 70_011),
        "The provided value for the input parameter 'scope' is not valid.",
        "the scope is wrong",
    ),
    entra(
        "token-28002",
        Class::ConfigurationAtToken,
        (400, "invalid_scope", 28_002),
        "The provided value for the input parameter 'scope' is not valid.",
        "the scope is wrong",
    ),
    entra(
        "token-500011",
        Class::ConfigurationAtToken,
        (400, "invalid_resource", 500_011),
        "The resource principal was not found in the tenant.",
        "the tenant has no Exchange Online, or the scope is of the wrong cloud",
    ),
    entra(
        "token-650052",
        Class::ConfigurationAtToken,
        (400, "invalid_request", 650_052),
        "The app needs access to a service that your organization has not subscribed to or enabled.",
        "the service is not enabled, or the application is set up wrongly",
    )
    .unproven(),
    entra(
        "token-65005",
        Class::ConfigurationAtToken,
        (400, "invalid_request", 65_005),
        "The app needs access to a service that your organization has not subscribed to or enabled.",
        "the service is not enabled, or the application is set up wrongly",
    )
    .unproven(),
    entra(
        "token-65001",
        Class::NeedsConsent,
        (400, "invalid_grant", 65_001),
        "The user or administrator has not consented to use the application.",
        "consent is missing",
    ),
    entra(
        "token-90094",
        Class::NeedsConsent,
        (400, "invalid_grant", 90_094),
        "Admin consent is required for the permissions requested by this application.",
        "an administrator must consent",
    )
    .unproven(),
    entra(
        "token-50034",
        Class::ConfigurationAtToken,
        (400, "invalid_grant", 50_034),
        "The user account does not exist in the directory.",
        "the user is not in the tenant",
    ),
    entra(
        "token-50126",
        Class::ConfigurationAtToken,
        (400, "invalid_grant", 50_126),
        "Error validating credentials due to invalid username or password.",
        "the password is wrong or missing (ROPC)",
    )
    .unproven(),
    entra(
        "token-50056",
        Class::ConfigurationAtToken,
        (400, "invalid_grant", 50_056),
        "Error validating credentials due to invalid username or password.",
        "the password is wrong or missing (ROPC)",
    )
    .unproven(),
    entra(
        "token-50053",
        Class::AccountLocked,
        (400, "invalid_grant", 50_053),
        "The account is locked.",
        "the account is locked, or the address is bad",
    )
    .unproven(),
    entra(
        "token-50055",
        Class::ConfigurationAtToken,
        (400, "invalid_grant", 50_055),
        "The password has expired or the user account is disabled.",
        "the password has expired, or the user is disabled",
    )
    .unproven(),
    entra(
        "token-50057",
        Class::ConfigurationAtToken,
        (400, "invalid_grant", 50_057),
        "The password has expired or the user account is disabled.",
        "the password has expired, or the user is disabled",
    )
    .unproven(),
    entra(
        "token-50144",
        Class::ConfigurationAtToken,
        (400, "invalid_grant", 50_144),
        "The password has expired or the user account is disabled.",
        "the password has expired, or the user is disabled",
    )
    .unproven(),
    entra(
        "token-50076",
        Class::SignInAgain,
        (400, "interaction_required", 50_076),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered",
    )
    .unproven(),
    entra(
        "token-50076-invalid-grant",
        Class::SignInAgain,
        (400, "invalid_grant", 50_076),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered; with the other `error`",
    )
    .unproven(),
    entra(
        "token-50079",
        Class::SignInAgain,
        (400, "interaction_required", 50_079),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered",
    )
    .unproven(),
    entra(
        "token-50079-invalid-grant",
        Class::SignInAgain,
        (400, "invalid_grant", 50_079),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered; with the other `error`",
    )
    .unproven(),
    entra(
        "token-50074",
        Class::SignInAgain,
        (400, "interaction_required", 50_074),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered",
    )
    .unproven(),
    entra(
        "token-50074-invalid-grant",
        Class::SignInAgain,
        (400, "invalid_grant", 50_074),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered; with the other `error`",
    )
    .unproven(),
    entra(
        "token-50078",
        Class::SignInAgain,
        (400, "interaction_required", 50_078),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered",
    )
    .unproven(),
    entra(
        "token-50078-invalid-grant",
        Class::SignInAgain,
        (400, "invalid_grant", 50_078),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered; with the other `error`",
    )
    .unproven(),
    entra(
        "token-50072",
        Class::SignInAgain,
        (400, "interaction_required", 50_072),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered",
    )
    .unproven(),
    entra(
        "token-50072-invalid-grant",
        Class::SignInAgain,
        (400, "invalid_grant", 50_072),
        "Due to a configuration change made by your administrator, you must use multi-factor authentication.",
        "multi-factor authentication is needed or must be registered; with the other `error`",
    )
    .unproven(),
    entra(
        "token-50158",
        Class::Policy,
        (400, "interaction_required", 50_158),
        "An external challenge, a device or a policy is not satisfied.",
        "an external challenge, a device or a policy stands in the way",
    )
    .unproven(),
    entra(
        "token-50097",
        Class::Policy,
        (400, "interaction_required", 50_097),
        "An external challenge, a device or a policy is not satisfied.",
        "an external challenge, a device or a policy stands in the way",
    )
    .unproven(),
    entra(
        "token-53000",
        Class::Policy,
        (400, "interaction_required", 53_000),
        "An external challenge, a device or a policy is not satisfied.",
        "an external challenge, a device or a policy stands in the way",
    )
    .unproven(),
    entra(
        "token-53001",
        Class::Policy,
        (400, "interaction_required", 53_001),
        "An external challenge, a device or a policy is not satisfied.",
        "an external challenge, a device or a policy stands in the way",
    )
    .unproven(),
    entra(
        "token-530032",
        Class::Policy,
        (400, "interaction_required", 530_032),
        "An external challenge, a device or a policy is not satisfied.",
        "an external challenge, a device or a policy stands in the way",
    )
    .unproven(),
    entra(
        "token-53003",
        Class::Policy,
        (400, "access_denied", 53_003),
        "Access has been blocked by Conditional Access policies.",
        "Conditional Access blocks",
    )
    .unproven(),
    entra(
        "token-53003-invalid-grant",
        Class::Policy,
        (400, "invalid_grant", 53_003),
        "Access has been blocked by Conditional Access policies.",
        "Conditional Access blocks; with the other `error`",
    )
    .unproven(),
    entra(
        "token-530035",
        Class::Policy,
        (400, "access_denied", 530_035),
        "Access has been blocked by security defaults.",
        "security defaults block",
    )
    .unproven(),
    entra(
        "token-70043",
        Class::SignInAgain,
        (400, "invalid_grant", 70_043),
        "The refresh token has expired or is invalid due to sign-in frequency checks by Conditional Access.",
        "the sign-in frequency was reached",
    )
    .unproven(),
    entra(
        "token-70008",
        Class::SignInAgain,
        (400, "invalid_grant", 70_008),
        "The refresh token has expired due to inactivity.",
        "the refresh token was not used for 90 days",
    ),
    entra(
        "token-700082",
        Class::SignInAgain,
        (400, "invalid_grant", 700_082),
        "The refresh token has expired due to inactivity.",
        "the refresh token was not used for 90 days",
    ),
    entra(
        "token-50173",
        Class::SignInAgain,
        (400, "invalid_grant", 50_173),
        "The provided grant has expired due to it being revoked; a fresh auth token is needed.",
        "the token was revoked, as by a change of the password",
    )
    .unproven(),
    entra(
        "token-50133",
        Class::SignInAgain,
        (400, "invalid_grant", 50_133),
        "The provided grant has expired due to it being revoked; a fresh auth token is needed.",
        "the token was revoked, as by a change of the password",
    )
    .unproven(),
    entra(
        "token-50132",
        Class::SignInAgain,
        (400, "invalid_grant", 50_132),
        "The provided grant has expired due to it being revoked; a fresh auth token is needed.",
        "the token was revoked, as by a change of the password",
    )
    .unproven(),
    entra(
        "token-54005",
        Class::ClientBug,
        (400, "invalid_grant", 54_005),
        "OAuth2 authorization code was already redeemed.",
        "the code was already redeemed",
    )
    .unproven(),
    entra(
        "token-9001023",
        Class::ConfigurationAtToken,
        (400, "invalid_request", 9_001_023),
        "The grant type or application is not supported over the /common endpoint.",
        "/common is not allowed for the grant or the application",
    )
    .unproven(),
    entra(
        "token-50194",
        Class::ConfigurationAtToken,
        (400, "invalid_request", 50_194),
        "The grant type or application is not supported over the /common endpoint.",
        "/common is not allowed for the grant or the application",
    )
    .unproven(),
    entra(
        "token-700229",
        Class::ConfigurationAtToken,
        (401, "invalid_client", 700_229),
        "Only app-only tokens can be used as federated identity credentials.",
        "a token of a user was used as a federated credential",
    )
    .unproven(),
    entra(
        "token-70016",
        Class::Flow,
        (400, "authorization_pending", 70_016),
        "OAuth 2.0 device flow error. Authorization is pending.",
        "device code: nobody has signed in yet",
    )
    .unproven(),
    entra(
        "token-70018",
        Class::Flow,
        (400, "bad_verification_code", 70_018),
        "Invalid verification code.",
        "device code: the code is wrong",
    )
    .unproven(),
    entra(
        "token-70019",
        Class::Flow,
        (400, "expired_token", 70_019),
        "Verification code expired.",
        "device code: the code has expired",
    )
    .unproven(),
    entra(
        "token-50196",
        Class::Throttled,
        (400, "invalid_grant", 50_196),
        "The server terminated an operation because it encountered a client request loop. Please contact your \
         app vendor.",
        "more than about 15 identical requests in 5 minutes; wait as long",
    )
    .unproven(),
    entra(
        "token-90055",
        Class::Transient,
        (503, "temporarily_unavailable", 90_055),
        "The tenant is being throttled.",
        "the tenant is throttled",
    )
    .unproven(),
    entra(
        "token-90033",
        Class::Transient,
        (503, "temporarily_unavailable", 90_033),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-90006",
        Class::Transient,
        (503, "temporarily_unavailable", 90_006),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-90012",
        Class::Transient,
        (503, "temporarily_unavailable", 90_012),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-90024",
        Class::Transient,
        (503, "temporarily_unavailable", 90_024),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-90090",
        Class::Transient,
        (503, "temporarily_unavailable", 90_090),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-50033",
        Class::Transient,
        (503, "temporarily_unavailable", 50_033),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-50087",
        Class::Transient,
        (503, "temporarily_unavailable", 50_087),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-70012",
        Class::Transient,
        (503, "temporarily_unavailable", 70_012),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-40010",
        Class::Transient,
        (503, "temporarily_unavailable", 40_010),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-80002",
        Class::Transient,
        (503, "temporarily_unavailable", 80_002),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-80014",
        Class::Transient,
        (503, "temporarily_unavailable", 80_014),
        "A transient error has occurred. Please try again.",
        "a fault of the service",
    )
    .unproven(),
    entra(
        "token-50000",
        Class::Transient,
        (500, "server_error", 50_000),
        "There was an issue inside the service.",
        "an internal failure; a ticket if it stays",
    )
    .unproven(),
    entra(
        "token-90036",
        Class::Transient,
        (500, "server_error", 90_036),
        "There was an issue inside the service.",
        "an internal failure; a ticket if it stays",
    )
    .unproven(),
    http("token-429", Class::Throttled, 429, Some(5), "", "throttled, with Retry-After").facts("4.6"),
    http("token-429-bare", Class::Throttled, 429, None, "", "throttled, without Retry-After").facts("4.6"),
    http(
        "token-500",
        Class::Transient,
        500,
        None,
        "<html><body>Internal Server Error</body></html>",
        "the service fails",
    )
    .facts("4.6"),
    http(
        "token-502",
        Class::Transient,
        502,
        None,
        "<html><body>Bad Gateway</body></html>",
        "something before the service fails",
    )
    .facts("4.6"),
    http(
        "token-503",
        Class::Transient,
        503,
        Some(5),
        "<html><body>Service Unavailable</body></html>",
        "the service is overloaded, with Retry-After",
    )
    .facts("4.6"),
    http("token-503-bare", Class::Transient, 503, None, "", "the service is overloaded, without Retry-After")
        .facts("4.6"),
    http(
        "token-504",
        Class::Transient,
        504,
        None,
        "<html><body>Gateway Timeout</body></html>",
        "something before the service waits in vain",
    )
    .facts("4.6"),
    http(
        "token-garbage",
        Class::Unusable,
        200,
        None,
        "<html><body>Sign in to the wireless network</body></html>",
        "a page in place of JSON, as from a captive portal",
    ),
    http(
        "token-half-json",
        Class::Unusable,
        200,
        None,
        "{\"token_type\":\"Bearer\",\"expires_in\":4500,\"acc",
        "JSON that ends in its middle",
    ),
    redirect("token-redirect", 302),
    redirect("token-redirect-307", 307),
    odd("token-enormous", Class::Unusable, OddToken::Padded(10 << 20), "a good answer of 10 MB"),
    odd("token-empty", Class::Unusable, OddToken::Empty, "an answer with an empty token"),
    odd(
        "token-short-lived",
        Class::Harmless,
        OddToken::Lifetime(Duration::from_mins(1)),
        "a token that lives for a minute",
    ),
    odd(
        "token-expired",
        Class::RefreshToken,
        OddToken::Lifetime(Duration::ZERO),
        "a token that has expired when it comes",
    ),
    Row::at(Stage::Token, "token-hang", Class::Transient, Effect::Stall, "the endpoint never answers").facts("none"),
    Row::at(
        Stage::Token,
        "token-slow",
        Class::Harmless,
        Effect::Delay(Duration::from_secs(10)),
        "the right answer comes 10 s late",
    )
    .facts("none"),
    Row::at(Stage::Token, "token-drop", Class::Transient, Effect::Close, "the connection is cut without an answer")
        .facts("none"),
];
