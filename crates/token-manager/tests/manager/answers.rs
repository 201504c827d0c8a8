//! Every kind of answer becomes a token or a failure of the right class.

use std::time::Duration;

use clock::Clock;
use token_manager::FailureClass::{self, Configuration, Credential, Grant, Throttled, Transient, Unexpected};

use crate::endpoint::{Answer, CORRELATION_ID, TRACE_ID};
use crate::world::{SECRET, World, failure};

#[tokio::test]
async fn a_token() {
    let world = World::new().await;
    world.endpoint.script([Answer::token("eyJ0.tok-en_1", 3599)]);
    let manager = world.start();
    let token = manager.token().await.unwrap();
    assert_eq!(token.expose(), "eyJ0.tok-en_1");
    assert_eq!(token.expires_at(), world.clock.wall() + Duration::from_secs(3599));
    let status = manager.status();
    assert_eq!(status.expires_at, Some(token.expires_at()));
    assert_eq!((status.last_success, status.last_failure), (Some(world.clock.wall()), None));
    assert_eq!(world.endpoint.requests(), 1);
}

#[tokio::test]
async fn invalid_client_in_full() {
    let world = World::new().await;
    let text = "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '66666666-7777-8888-9999-000000000000'.";
    world.endpoint.script([Answer::error(401, "invalid_client", 7_000_215, text)]);
    let manager = world.start();
    let (failure, next) = failure(&manager).await;
    assert_eq!(failure.class, Credential);
    assert_eq!(failure.http_status, Some(401));
    assert_eq!(failure.error.as_deref(), Some("invalid_client"));
    assert_eq!(failure.codes, [7_000_215]);
    assert_eq!(failure.trace_id.as_deref(), Some(TRACE_ID));
    assert_eq!(failure.correlation_id.as_deref(), Some(CORRELATION_ID));
    assert_eq!(failure.text, format!("AADSTS7000215: {text}"));
    assert!(failure.advice.contains("Value"), "{}", failure.advice);
    assert_eq!(next, world.clock.wall() + Duration::from_mins(1));
    assert_eq!(manager.status().last_failure, Some((world.clock.wall(), failure)));
}

#[tokio::test]
async fn the_table() {
    let long = "x".repeat((1 << 20) + 1);
    let html = "<html><body>Service Unavailable</body></html>";
    let rows: Vec<(Answer, FailureClass, Option<u16>, &str, u64)> = vec![
        (Answer::raw(429, &[("Retry-After", "120")], ""), Throttled, Some(429), "empty", 120),
        (Answer::raw(429, &[("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")], ""), Throttled, Some(429), "empty", 5),
        (Answer::raw(500, &[("Content-Type", "text/html")], html), Transient, Some(500), "not the JSON", 5),
        (
            Answer::raw(503, &[("Retry-After", "40"), ("Content-Type", "text/html")], html),
            Transient,
            Some(503),
            "not the JSON",
            40,
        ),
        (
            Answer::error(503, "temporarily_unavailable", 90_033, "A transient error has occurred."),
            Transient,
            Some(503),
            "AADSTS90033",
            5,
        ),
        (
            Answer::error(400, "temporarily_unavailable", 90_033, "A transient error has occurred."),
            Transient,
            Some(400),
            "AADSTS90033",
            60,
        ),
        (
            Answer::error(400, "unauthorized_client", 700_016, "Application not found."),
            Configuration,
            Some(400),
            "AADSTS700016",
            60,
        ),
        (
            Answer::error(400, "invalid_request", 90_002, "Tenant 'x' not found."),
            Configuration,
            Some(400),
            "AADSTS90002",
            60,
        ),
        // A loop, which passes only when nobody asks for five minutes; by another grant it would be a refused one.
        (
            Answer::error(400, "invalid_grant", 50_196, "The server terminated an operation because of a loop."),
            Grant,
            Some(400),
            "AADSTS50196",
            300,
        ),
        (Answer::json(200, &long), Unexpected, Some(200), "longer than 1 MiB", 5),
        (Answer::json(502, &long), Transient, Some(502), "longer than 1 MiB", 5),
        (Answer::token("", 3599), Unexpected, Some(200), "empty", 5),
        (Answer::token(r"a\u0001auth=Bearer b", 3599), Unexpected, Some(200), "not printable", 5),
        (Answer::token("a", 5), Unexpected, Some(200), "only 5 s", 5),
        (Answer::json(200, ""), Unexpected, Some(200), "empty", 5),
        (Answer::json(200, "[]"), Unexpected, Some(200), "not the JSON", 5),
        (
            Answer::raw(200, &[("Content-Type", "text/html")], "<html>Log in to this wifi</html>"),
            Unexpected,
            Some(200),
            "not the JSON",
            5,
        ),
        // An error with status 200 is an error.
        (
            Answer::error(200, "invalid_client", 7_000_222, "The provided client secret keys are expired."),
            Credential,
            Some(200),
            "AADSTS7000222",
            5,
        ),
        // Not followed: there is nobody at that place, and the status is what we see.
        (Answer::raw(307, &[("Location", "http://127.0.0.1:9/")], ""), Unexpected, Some(307), "empty", 5),
        (Answer::raw(404, &[], "not here"), Unexpected, Some(404), "not the JSON", 5),
        // A helpful proxy repeats what it was sent.
        (
            Answer::json(400, &format!(r#"{{"error":"invalid_client","error_description":"bad secret {SECRET}"}}"#)),
            Credential,
            Some(400),
            "withheld",
            60,
        ),
    ];
    for (row, (answer, class, http_status, text, wait)) in rows.into_iter().enumerate() {
        let world = World::new().await;
        world.endpoint.script([answer]);
        let (failure, next) = failure(&world.start()).await;
        assert_eq!((failure.class, failure.http_status), (class, http_status), "{row} {failure}");
        assert!(failure.text.contains(text), "{row} {failure}");
        assert_eq!(next, world.clock.wall() + Duration::from_secs(wait), "{row} {failure}");
        assert!(!failure.advice.is_empty() && !format!("{failure} {failure:?}").contains(SECRET));
        assert_eq!(world.endpoint.requests(), 1, "{row}");
    }
}

#[tokio::test]
async fn the_trace_id_is_kept_even_without_json() {
    let world = World::new().await;
    world.endpoint.script([Answer::raw(500, &[("x-ms-request-id", TRACE_ID)], "<html>")]);
    assert_eq!(failure(&world.start()).await.0.trace_id.as_deref(), Some(TRACE_ID));
}

#[tokio::test]
async fn nobody_listens() {
    let world = World::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (failure, _) = failure(&world.start_at(format!("http://{free}/token").parse().unwrap())).await;
    assert_eq!((failure.class, failure.http_status), (Transient, None));
    assert!(failure.text.to_lowercase().contains("connection refused"), "{failure}");
}

/// Paused time jumps to the time-out as soon as nothing else can happen.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs() {
    let world = World::new().await;
    world.endpoint.script([Answer::hang()]);
    let (failure, next) = failure(&world.start()).await;
    assert_eq!((failure.class, failure.http_status), (Transient, None));
    assert_eq!(failure.text, "no reply within 30 s");
    assert_eq!(next, world.clock.wall() + Duration::from_secs(5));
}

#[tokio::test]
async fn an_unreadable_secret_asks_nobody_and_heals() {
    let world = World::new().await;
    world.source.text.lock().unwrap().take();
    let manager = world.start();
    let (failure, _) = failure(&manager).await;
    assert_eq!((failure.class, failure.http_status), (Credential, None));
    assert!(failure.text.contains("contoso.secret") && failure.advice.contains("contoso.secret"), "{failure:?}");
    assert_eq!(world.endpoint.requests(), 0);
    *world.source.text.lock().unwrap() = Some(format!("{SECRET}\n"));
    world.endpoint.script([Answer::token("t1", 3599)]);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(manager.token().await.unwrap().expose(), "t1");
    assert_eq!(manager.status().failures, 0);
}
