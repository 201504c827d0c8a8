//! One account that has signed in for many shared mailboxes: Entra ID counts all that its refresh tokens ask, so we do, over
//! restarts and with what `login` asks.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use token_manager::{
    Application, Credential, Grant, Kinship, REQUEST_PERIOD, Secret, SignInError, StoredGrant, TokenManager,
    TokenUnavailable, Vault, VaultName,
};

use crate::endpoint::{CLIENT_ID, DELEGATED_SCOPE};
use crate::entra::Entra;
use crate::secrecy::listen;
use crate::world::{World, endpoints, until};

const SERVICE: &str = "service@contoso.com";
/// What an account may ask in five minutes.
const LIMIT: usize = 12;
/// Entra ID answers AADSTS50196 to the next one.
const ENTRAS: usize = 15;

/// Shared mailboxes, each with a refresh token of its own.
struct Office {
    world: World,
    entra: Entra,
    managers: Vec<TokenManager>,
    kinship: Kinship,
    /// When how many requests had come.
    seen: Vec<(Duration, usize)>,
}

impl Office {
    async fn new() -> Self {
        let (world, entra) = (World::new().await, Entra::start(&[]).await);
        let known: Vec<_> = (0..40).map(|number| format!("r{number}")).collect();
        entra.know(&known.iter().map(String::as_str).collect::<Vec<_>>());
        Self { world, entra, managers: Vec::new(), kinship: Kinship::default(), seen: Vec::new() }
    }

    fn vault(&self) -> Vault {
        Vault::open(self.world.path("refresh-tokens"), None).unwrap()
    }

    fn application(&self, number: usize) -> Application {
        let (vault, mailbox) = (Arc::new(self.vault()), format!("shared{number}"));
        Application {
            endpoints: endpoints(self.entra.url.clone()),
            credential: Credential::Public,
            scope: DELEGATED_SCOPE.to_owned(),
            grant: Grant::Delegated { vault, name: name(number), mailbox },
            kinship: self.kinship.clone(),
            ..self.world.application()
        }
    }

    /// `account` signs in for that mailbox, elsewhere.
    fn sign_in(&self, number: usize, account: Option<&str>) {
        let now = self.world.clock.wall();
        let grant = StoredGrant {
            refresh_token: Secret::new(format!("r{number}")).unwrap(),
            account: account.map(str::to_owned),
            user: name(number).mailbox,
            signed_in_at: now,
            renewed_at: now,
            refused: None,
        };
        self.vault().store(&name(number), &grant).unwrap();
    }

    fn start(&mut self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let manager = self.world.start_beside(self.application(number), &format!("ledger{number}"));
            self.managers.push(manager);
        }
    }

    /// Time goes on, and everybody has done what was to be done.
    async fn pass(&mut self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
        let now = self.world.clock.wall();
        for manager in &self.managers {
            manager.wake();
        }
        for manager in &self.managers {
            until(manager, |status| !status.fetching && status.next_attempt > now).await;
        }
        let elapsed = self.world.clock.monotonic().saturating_since(clock::Monotonic::from_start(Duration::ZERO));
        self.seen.push((elapsed, self.entra.shown().len()));
    }

    fn with_a_token(&self) -> usize {
        let now = self.world.clock.wall();
        let has_one = |manager: &&TokenManager| manager.status().expires_at.is_some_and(|end| end > now);
        self.managers.iter().filter(has_one).count()
    }

    /// How many requests any five minutes had, at most.
    fn most_in_a_period(&self) -> usize {
        let since = |from: usize| {
            let (start, before) = (self.seen[from].0, if from == 0 { 0 } else { self.seen[from - 1].1 });
            let within = self.seen.iter().filter(|(at, _)| *at >= start && *at <= start + REQUEST_PERIOD);
            within.map(|(_, count)| count - before).max().unwrap_or_default()
        };
        (0..self.seen.len()).map(since).max().unwrap_or_default()
    }
}

fn name(number: usize) -> VaultName {
    VaultName {
        tenant_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        client_id: CLIENT_ID.to_owned(),
        mailbox: format!("shared{number}@contoso.com"),
    }
}

#[tokio::test]
async fn twenty_shared_mailboxes_of_one_account_get_their_tokens_in_turn_and_keep_them() {
    let (log, _guard) = listen();
    let mut office = Office::new().await;
    for number in 0..20 {
        // Upper and lower case are one account.
        office.sign_in(number, Some(if number % 2 == 0 { SERVICE } else { "Service@Contoso.com" }));
    }
    office.start(0..20);
    office.pass(0).await;
    assert_eq!((office.with_a_token(), office.entra.shown().len()), (LIMIT, LIMIT));
    let waiting = office.managers.iter().find(|manager| manager.status().last_success.is_none()).unwrap().clone();
    let turn = office.world.clock.wall() + Duration::from_secs(301);
    assert!(matches!(waiting.token().await, Err(TokenUnavailable::Budget { next }) if next == turn));
    let status = waiting.status();
    assert_eq!((status.failures, status.last_failure, status.next_attempt), (0, None, turn));
    assert_eq!(log.lines("WARN", ""), 0, "{}", log.text());
    assert_eq!(log.lines("DEBUG", "other mailboxes of the same account ask first"), 8);
    office.pass(300).await;
    assert_eq!(office.entra.shown().len(), LIMIT);
    office.pass(1).await;
    assert_eq!((office.with_a_token(), office.entra.shown().len()), (20, 20));
    for _ in 0..3 * 60 {
        office.pass(60).await;
        assert_eq!(office.with_a_token(), 20);
    }
    assert!(office.most_in_a_period() <= LIMIT, "{:?}", office.seen);
    assert_eq!(log.lines("WARN", ""), 0, "{}", log.text());
}

#[tokio::test]
async fn a_restart_gives_an_account_no_new_budget_and_other_accounts_have_their_own() {
    let mut office = Office::new().await;
    (0..16).for_each(|number| office.sign_in(number, Some(SERVICE)));
    (16..20).for_each(|number| office.sign_in(number, Some("other@contoso.com")));
    office.start(0..LIMIT);
    office.pass(0).await;
    assert_eq!(office.with_a_token(), LIMIT);
    office.world = office.world.restarted();
    (office.managers, office.kinship) = (Vec::new(), Kinship::default());
    office.start(0..20);
    office.pass(1).await;
    assert_eq!(office.with_a_token(), 4);
    let mut shown = office.entra.shown().split_off(LIMIT);
    shown.sort();
    assert_eq!(shown, ["r16", "r17", "r18", "r19"]);
}

#[tokio::test]
async fn who_has_a_token_leaves_the_last_requests_to_who_has_none() {
    let mut office = Office::new().await;
    (0..12).for_each(|number| office.sign_in(number, Some(SERVICE)));
    office.start(0..6);
    office.pass(0).await;
    for (number, manager) in office.managers.iter().enumerate() {
        let token = manager.token().await.unwrap();
        office.world.clock.advance(Duration::from_secs(1));
        assert_eq!(manager.replace(&token).await.is_ok(), number < 2, "{number}");
    }
    office.start(6..12);
    office.pass(1).await;
    assert_eq!((office.with_a_token(), office.entra.shown().len()), (10, LIMIT));
}

#[tokio::test]
async fn whose_it_is_may_be_known_by_the_first_answer_alone() {
    let mut office = Office::new().await;
    (0..20).for_each(|number| office.sign_in(number, None));
    office.entra.name(SERVICE);
    office.start(0..4);
    office.pass(0).await;
    let stored = office.vault().load(&name(3)).unwrap().unwrap();
    assert_eq!((stored.account.as_deref(), stored.refresh_token.expose()), (Some(SERVICE), "r3"));
    assert_eq!(office.managers[3].status().sign_in.unwrap().account.as_deref(), Some(SERVICE));
}

#[tokio::test]
async fn what_login_takes_over_counts_for_its_account_and_never_leads_to_a_loop() {
    let mut office = Office::new().await;
    office.entra.name(SERVICE);
    let take_over = async |office: &Office, number: usize| {
        let mut sign_in = office.world.sign_in(office.application(number), &format!("ledger{number}"));
        sign_in.take_over(&Secret::new(format!("r{number}")).unwrap()).await
    };
    for number in 0..5 {
        take_over(&office, number).await.unwrap();
    }
    // The daemon that runs has what is left of them.
    (20..40).for_each(|number| office.sign_in(number, Some(SERVICE)));
    office.start(20..40);
    office.pass(0).await;
    assert_eq!(office.with_a_token(), LIMIT - 5);
    for number in 5..8 {
        take_over(&office, number).await.unwrap();
    }
    let refused = take_over(&office, 8).await;
    assert!(matches!(refused, Err(SignInError::Budget { wait_secs: 302 })), "{refused:?}");
    assert_eq!(office.entra.shown().len(), ENTRAS);
    office.world.clock.advance(Duration::from_secs(301));
    take_over(&office, 8).await.unwrap();
}
