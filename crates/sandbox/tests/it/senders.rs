//! Whom a login may send as: itself, its aliases, and what SendAs allows (facts 1.6, 5.3); for applications and for people, in one
//! tenant of several.

use sandbox::{
    Application, DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_TENANT_ID, EXCHANGE_SCOPE, Grant, Mailbox, SendAsDenial,
    TenantModel,
};

use crate::support::{Client, World, xoauth2};

impl World {
    /// A connection that is logged in as `user` with this token.
    async fn logged_in_as(&self, user: &str, token: &str) -> Client {
        let mut client = self.secure().await;
        let reply = client.say(&format!("AUTH XOAUTH2 {}", xoauth2(user, token))).await;
        assert_eq!(reply, "235 2.7.0 Authentication successful", "{user}");
        client
    }
}

/// The first two words of the answer to a message from `from`, by envelope and header.
async fn send_as(client: &mut Client, from: &str) -> String {
    client.envelope(from, "you@example.org").await;
    let reply = client.say(&format!("From: {from}\r\nMessage-ID: <{from}>\r\n\r\nhi\r\n.")).await;
    reply.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

const TAKEN: &str = "250 2.0.0";
const DENIED: &str = "554 5.2.252";

#[tokio::test]
async fn an_alias_is_taken_and_shown_only_where_the_tenant_shows_aliases() {
    let world = World::with(|options| {
        let mailbox = options.tenants[0].mailboxes.remove(0);
        options.tenants[0].mailboxes.push(mailbox.alias("Documents@contoso.com").send_as("boss@contoso.com"));
    })
    .await;
    let mut client = world.logged_in().await;
    let shown = [("documents@contoso.com", DEFAULT_MAILBOX), ("boss@contoso.com", "boss@contoso.com")];
    for (from, shown) in shown {
        assert_eq!(send_as(&mut client, from).await, TAKEN);
        let message = world.sandbox.messages().pop().unwrap();
        assert_eq!(
            (&message.header_from[..], &message.shown_from[..]),
            (&[from.to_owned()][..], &[shown.to_owned()][..])
        );
    }
    world.sandbox.set_send_from_alias(DEFAULT_TENANT_ID, true).unwrap();
    assert_eq!(send_as(&mut client, "Documents@contoso.com").await, TAKEN);
    assert_eq!(world.sandbox.messages().pop().unwrap().shown_from, ["Documents@contoso.com"]);
    assert_eq!(send_as(&mut client, "other@contoso.com").await, DENIED);
    world.sandbox.add_alias(DEFAULT_MAILBOX, "other@contoso.com").unwrap();
    assert_eq!(send_as(&mut client, "other@contoso.com").await, TAKEN);
    // It is no login.
    let token = world.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap();
    assert_eq!(world.answer_to("documents@contoso.com", &token).await, "535 5.7.3");
}

#[tokio::test]
async fn every_denial_is_counted_and_listed() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    for from in ["boss@contoso.com", DEFAULT_MAILBOX, "erp@fabrikam.com"] {
        send_as(&mut client, from).await;
    }
    client.envelope("Boss@contoso.com", "you@example.org").await;
    client.say("From: scanner@contoso.com\r\n\r\nhi\r\n.").await;
    let denial = |from: &str, message_id: Option<&str>| SendAsDenial {
        login: DEFAULT_MAILBOX.to_owned(),
        from: from.to_owned(),
        message_id: message_id.map(str::to_owned),
    };
    assert_eq!(
        world.sandbox.send_as_denials(),
        [
            denial("boss@contoso.com", Some("<boss@contoso.com>")),
            denial("erp@fabrikam.com", Some("<erp@fabrikam.com>")),
            denial("Boss@contoso.com", None),
        ]
    );
    let counters = world.sandbox.counters();
    assert_eq!((counters.messages, counters.send_as_denials), (1, 3));
}

#[tokio::test]
async fn a_person_sends_as_whom_his_mailbox_may_and_into_a_shared_one_as_that() {
    // One login with SendAs for many (OpenFire), and a delegate of a shared mailbox (AEM Forms).
    let world = World::with(|options| {
        let tenant = std::mem::take(&mut options.tenants[0]);
        options.tenants[0] = tenant
            .mailbox(Mailbox::new("chat@contoso.com").send_as("anna@contoso.com").send_as("bob@contoso.com"))
            .mailbox(Mailbox::new("forms@contoso.com").shared().delegate("chat@contoso.com"));
        options.tenants[0].applications[0].public_client = true;
    })
    .await;
    let token = world.sandbox.issue_delegated_token(DEFAULT_CLIENT_ID, "chat@contoso.com").unwrap();
    for (login, senders) in [
        ("chat@contoso.com", [TAKEN, TAKEN, TAKEN, DENIED, DENIED]),
        // Who may open it sends as it and as nobody else: SendAs of the person is not the mailbox's.
        ("forms@contoso.com", [DENIED, DENIED, DENIED, TAKEN, DENIED]),
    ] {
        let mut client = world.logged_in_as(login, &token).await;
        let names = ["chat", "anna", "bob", "forms", "scanner"].map(|name| format!("{name}@contoso.com"));
        for (from, expected) in names.iter().zip(senders) {
            assert_eq!(send_as(&mut client, from).await, expected, "{login} as {from}");
        }
    }
    // A login that does not exist is told as every other trouble of logins.
    assert_eq!(world.answer_to("nobody@contoso.com", &token).await, "535 5.7.3");
    assert_eq!(
        world.sandbox.last_auth_refusal().map(|refusal| refusal.to_string()).as_deref(),
        Some("there is no such mailbox")
    );
}

#[tokio::test]
async fn each_of_several_tenants_has_its_own_application_mailboxes_and_senders() {
    // One by either path: DocuWare's application with full access to a mailbox, and two in the scope of the role.
    let named = |name: &str| format!("{name}-client");
    let tenants = [("one", Grant::Rbac), ("two", Grant::FullAccess), ("three", Grant::Rbac)];
    let world = World::with(|options| {
        options.tenants = tenants
            .iter()
            .map(|(name, grant)| {
                let application = Application::new(&named(name), "secret");
                let needs_role = *grant == Grant::FullAccess;
                let mailbox =
                    |local: &str| Mailbox::new(&format!("{local}@{name}.example")).granted(&named(name), *grant);
                TenantModel::new(&format!("{name}-tenant"), &[&format!("{name}.example")])
                    .application(if needs_role { application.with_send_as_app() } else { application })
                    .mailbox(mailbox("erp").send_as(&format!("sales@{name}.example")))
                    .mailbox(mailbox("scanner"))
            })
            .collect();
    })
    .await;
    for (name, _) in tenants {
        let token = world.sandbox.issue_token(&named(name), EXCHANGE_SCOPE).unwrap();
        for (other, _) in tenants {
            let erp = format!("erp@{other}.example");
            if name != other {
                assert_eq!(world.answer_to(&erp, &token).await, "535 5.7.3", "{name} at {erp}");
                continue;
            }
            let mut client = world.logged_in_as(&erp, &token).await;
            for (local, expected) in [("erp", TAKEN), ("sales", TAKEN), ("scanner", DENIED)] {
                assert_eq!(send_as(&mut client, &format!("{local}@{name}.example")).await, expected, "{name} {local}");
            }
            assert_eq!(send_as(&mut client, "erp@elsewhere.example").await, DENIED);
        }
    }
}
