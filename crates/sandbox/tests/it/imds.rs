//! The metadata service and what its tokens prove (facts 4.4).

use std::time::Duration;

use sandbox::{
    Application, DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_TENANT_ID, EXCHANGE_SCOPE, FederatedIdentity,
    ManagedIdentity, SandboxOptions, TOKEN_EXCHANGE_AUDIENCE, TenantModel, catalogue,
};

use crate::support::{World, form, imds};

const IDENTITY: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const METADATA: &str = "Metadata: true\r\n";
const EXCHANGE: &str = "api-version=2018-02-01&resource=https://outlook.office365.com/";
const EXCHANGE_TOKEN: &str = "api-version=2018-02-01&resource=api://AzureADTokenExchange";

/// A machine with one identity, which the application trusts.
fn with_identity(options: &mut SandboxOptions) {
    let identity = ManagedIdentity::new(IDENTITY);
    let trusted = FederatedIdentity::managed_identity(DEFAULT_TENANT_ID, &identity);
    assert_eq!(trusted.audience, TOKEN_EXCHANGE_AUDIENCE);
    let mut tenant = TenantModel::default().managed_identity(identity);
    tenant.applications = vec![Application::without_credential(DEFAULT_CLIENT_ID).with_federated(trusted)];
    options.tenants = vec![tenant];
}

#[tokio::test]
async fn an_identity_gets_a_token_whose_numbers_are_strings() {
    let world = World::with(with_identity).await;
    let reply = imds(&world.sandbox, EXCHANGE_TOKEN, METADATA).await.unwrap();
    assert_eq!(reply.status, 200);
    let json = reply.json();
    assert_eq!((json["expires_in"].as_str(), json["token_type"].as_str()), (Some("4500"), Some("Bearer")));
    assert_eq!(json["expires_on"], (1_707_922_226 + 4_500).to_string());
    assert_eq!(json["not_before"], (1_707_922_226 - 300).to_string());
    assert_eq!((json["refresh_token"].as_str(), json["client_id"].as_str()), (Some(""), Some(IDENTITY)));
    assert_eq!(json["resource"], "api://AzureADTokenExchange");
    assert_eq!(world.sandbox.counters().imds_requests, 1);
}

#[tokio::test]
async fn the_second_hop_takes_the_identitys_token_as_an_assertion() {
    let world = World::with(with_identity).await;
    let assertion = imds(&world.sandbox, EXCHANGE_TOKEN, METADATA).await.unwrap().text("access_token");
    let ask = async |assertion: &str| {
        let parameters = [
            ("client_id", DEFAULT_CLIENT_ID),
            ("scope", EXCHANGE_SCOPE),
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        form(&world.sandbox, &parameters).await.unwrap()
    };
    let reply = ask(&assertion).await;
    assert_eq!(world.answer_to(DEFAULT_MAILBOX, &reply.text("access_token")).await, "235 2.7.0");
    // One for another resource proves nothing, nor does a token of the application itself.
    let other = imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap().text("access_token");
    assert_eq!(ask(&other).await.verdict(), (401, "invalid_client".to_owned(), 700_212));
    assert_eq!(ask(&reply.text("access_token")).await.verdict(), (401, "invalid_client".to_owned(), 700_211));
    let user = world.sandbox.issue_delegated_token(DEFAULT_CLIENT_ID, DEFAULT_MAILBOX).unwrap();
    assert_eq!(ask(&user).await.verdict(), (401, "invalid_client".to_owned(), 700_229));
    world.clock.advance(Duration::from_mins(80));
    assert_eq!(ask(&assertion).await.verdict(), (401, "invalid_client".to_owned(), 700_024));
}

#[tokio::test]
async fn an_identity_is_nobody_to_smtp() {
    let world = World::with(with_identity).await;
    let token = imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap().text("access_token");
    assert_eq!(world.answer_to(DEFAULT_MAILBOX, &token).await, "535 5.7.3");
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let world = World::with(with_identity).await;
    let forwarded = format!("{METADATA}X-Forwarded-For: 10.0.0.1\r\n");
    for (query, head, error, text) in [
        (EXCHANGE, "", "invalid_request", "Required metadata header not specified"),
        (EXCHANGE, "Metadata: false\r\n", "invalid_request", "Required metadata header not specified"),
        (EXCHANGE, &forwarded, "invalid_request", "Requests with the header X-Forwarded-For are refused"),
        ("resource=x", METADATA, "invalid_request", "api-version is invalid or was not specified in the request"),
        ("api-version=2018-02-01", METADATA, "invalid_request", "Required query variable 'resource' not specified"),
        (&format!("{EXCHANGE}&client_id=x"), METADATA, "invalid_request", "Identity not found"),
        (&format!("{EXCHANGE}&resource=x"), METADATA, "invalid_request", "A query variable is duplicated"),
    ] {
        let reply = imds(&world.sandbox, query, head).await.unwrap();
        let seen = (reply.status, reply.text("error"), reply.text("error_description"));
        assert_eq!(seen, (400, error.to_owned(), text.to_owned()), "{query}");
    }
    let unknown = imds(&world.sandbox, "api-version=2018-02-01&resource=https://x.example", METADATA).await.unwrap();
    assert_eq!((unknown.status, unknown.text("error").as_str()), (400, "invalid_resource"));
    assert!(unknown.text("error_description").starts_with("AADSTS500011: "));
    world
        .sandbox
        .change_tenant("contoso.com", |tenant| {
            tenant.managed_identities.push(ManagedIdentity::new("other"));
        })
        .unwrap();
    let reply = imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap();
    assert!(reply.text("error_description").starts_with("Multiple user assigned identities exist"));
    let reply = imds(&world.sandbox, &format!("{EXCHANGE}&client_id={IDENTITY}"), METADATA).await.unwrap();
    assert_eq!(reply.status, 200);
    world.sandbox.change_tenant("contoso.com", |tenant| tenant.managed_identities.clear()).unwrap();
    assert_eq!(imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap().text("error_description"), "Identity not found");
}

#[tokio::test]
async fn the_service_fails_as_told() {
    let world = World::with(with_identity).await;
    for (name, status) in [
        ("imds-400", 400),
        ("imds-404", 404),
        ("imds-410", 410),
        ("imds-429", 429),
        ("imds-429-retry-after", 429),
        ("imds-500", 500),
        ("imds-503", 503),
        ("imds-garbage", 200),
    ] {
        world.sandbox.inject(catalogue::find(name).unwrap().fault()).unwrap();
        let reply = imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap();
        assert_eq!(reply.status, status, "{name}");
        assert!(!reply.body.contains("access_token"), "{name}");
        assert_eq!(reply.head.contains("\r\nretry-after: 5"), name == "imds-429-retry-after", "{name}");
        assert_eq!(imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap().status, 200);
    }
    let only = format!("fault imds-410 for {IDENTITY}");
    world.sandbox.obey(&only.parse().unwrap()).unwrap();
    assert_eq!(imds(&world.sandbox, EXCHANGE, METADATA).await.unwrap().status, 200, "nobody was named");
    let named = format!("{EXCHANGE}&client_id={IDENTITY}");
    assert_eq!(imds(&world.sandbox, &named, METADATA).await.unwrap().status, 410);
}
