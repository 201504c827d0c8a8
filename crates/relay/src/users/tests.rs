//! What is verified, how often, and what is said; counted, never timed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Condvar;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::time;

use super::*;

/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Verifications that were begun, by the passes of the hash, and a gate that they stand behind.
#[derive(Default)]
struct Watch {
    state: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Default)]
struct Watched {
    begun: usize,
    running: usize,
    most: usize,
    is_shut: bool,
    passes: Vec<u32>,
}

impl Watch {
    fn change<T>(&self, change: impl FnOnce(&mut Watched) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        result
    }

    fn begun(&self) -> usize {
        self.change(|watched| watched.begun)
    }

    fn shut(&self, is_shut: bool) {
        self.change(|watched| watched.is_shut = is_shut);
    }

    fn verify(&self, password: &[u8], hash: &phc::PasswordHash) -> Result<bool, NotVerifiable> {
        self.change(|watched| {
            watched.begun += 1;
            watched.running += 1;
            watched.most = watched.most.max(watched.running);
            watched.passes.push(hash.params.get_decimal("t").unwrap());
        });
        let state = self.state.lock().unwrap();
        // Bounded, so that a test that fails ends.
        drop(self.changed.wait_timeout_while(state, PATIENCE, |watched| watched.is_shut).unwrap());
        let verdict = argon2id::verify(password, hash);
        self.change(|watched| watched.running -= 1);
        verdict
    }
}

fn users_with(places: Places, users: &[(&str, User)]) -> (Arc<Users>, Arc<Watch>) {
    let users = users.iter().map(|(name, user)| ((*name).to_owned(), user.clone())).collect();
    let watch = Arc::new(Watch::default());
    let watching = Arc::clone(&watch);
    let users = Users::with(&users, places, Arc::new(move |password, hash| watching.verify(password, hash)));
    (Arc::new(users), watch)
}

/// `erp` with the password `secret` and one pass, `crm@contoso.com` with `other` and two.
fn users() -> (Arc<Users>, Arc<Watch>) {
    let erp = User::cheap("secret", 1, &[]);
    let crm = User::cheap("other", 2, &["*@Contoso.com", "boss@fabrikam.com"]);
    users_with(Places::new(), &[("erp", erp), ("crm@contoso.com", crm)])
}

fn client(last: u8) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(192, 0, 2, last))
}

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials { name: name.to_owned(), password: Zeroizing::new(password.as_bytes().to_vec()) }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::from_start(Duration::from_secs(seconds))
}

fn wrong(seconds: u64) -> Result<Arc<str>, LoginRefused> {
    Err(LoginRefused::Wrong { delay: Duration::from_secs(seconds) })
}

async fn verify(users: &Users, from: u8, name: &str, password: &str) -> Result<Arc<str>, LoginRefused> {
    users.verify(client(from), &credentials(name, password), || at(100)).await
}

#[tokio::test(start_paused = true)]
async fn the_configured_name_comes_back_however_it_was_written() {
    let (users, watch) = users();
    for name in ["erp", "ERP", "Erp"] {
        assert_eq!(verify(&users, 1, name, "secret").await.as_deref(), Ok("erp"));
    }
    assert_eq!(verify(&users, 1, "CRM@CONTOSO.COM", "other").await.as_deref(), Ok("crm@contoso.com"));
    assert_eq!(watch.begun(), 2, "once for each user");
    for (name, password) in [("erp", "Secret"), ("erp", ""), ("erp ", "secret"), ("crm@contoso.com", "secret")] {
        assert!(matches!(verify(&users, 2, name, password).await, Err(LoginRefused::Wrong { .. })), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_daemons_users_verify_by_argon2id() {
    let users = Users::new(&BTreeMap::from([("erp".to_owned(), User::cheap("secret", 1, &[]))]));
    assert_eq!(verify(&users, 1, "erp", "other").await, wrong(1));
    assert_eq!(verify(&users, 1, "erp", "secret").await.as_deref(), Ok("erp"));
}

#[tokio::test(start_paused = true)]
async fn what_was_right_once_costs_no_verification_from_anywhere() {
    let (users, watch) = users();
    for from in 1..=50 {
        assert_eq!(verify(&users, from, "erp", "secret").await.as_deref(), Ok("erp"));
    }
    assert_eq!(watch.begun(), 1);
    assert_eq!(verify(&users, 60, "erp", "secret2").await, wrong(1));
    assert_eq!(watch.begun(), 2, "another password is verified");
}

#[tokio::test(start_paused = true)]
async fn renewed_users_remember_who_is_the_same_and_who_guessed() {
    let (first, second) = (User::cheap("secret", 1, &[]), User::cheap("other", 2, &[]));
    let (old, watch) = users_with(Places::new(), &[("erp", first.clone()), ("crm@contoso.com", second)]);
    let erp = verify(&old, 1, "erp", "secret").await.unwrap();
    let crm = verify(&old, 1, "crm@contoso.com", "other").await.unwrap();
    for guess in 0..5 {
        assert!(verify(&old, 9, "erp", &guess.to_string()).await.is_err());
    }
    let before = watch.begun();
    // The same hash with other senders, another hash of another name, one more user.
    let configured =
        |users: &[(&str, User)]| users.iter().map(|(name, user)| ((*name).to_owned(), user.clone())).collect();
    let changed = User::cheap("new", 2, &["a@b.c"]);
    let kept = User { allowed_senders: changed.allowed_senders.clone(), ..first.clone() };
    let new = old.renewed(&configured(&[("erp", kept), ("crm@contoso.com", changed.clone())]));
    assert!(new.still_knows(&erp) && !new.still_knows(&crm));
    assert_eq!(verify(&new, 1, "erp", "secret").await.as_deref(), Ok("erp"));
    assert_eq!(watch.begun(), before, "what was right is remembered");
    assert!(verify(&new, 1, "crm@contoso.com", "other").await.is_err(), "the old password is right no more");
    assert!(matches!(verify(&new, 9, "erp", "wrong").await, Err(LoginRefused::LockedOut { .. })));
    let none = new.renewed(&configured(&[("crm@contoso.com", changed)]));
    assert!(!none.still_knows(&erp));
    assert!(verify(&none, 1, "erp", "secret").await.is_err());
    // Who comes back is not who went: his sessions were refused meanwhile.
    assert!(!none.renewed(&configured(&[("erp", first)])).still_knows(&erp));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_verified_just_as_a_wrong_password_is() {
    let (users, watch) = users();
    assert_eq!(verify(&users, 1, "erp", "wrong").await, wrong(1));
    assert_eq!(watch.begun(), 1);
    // Right for the user that stands in, whichever it is.
    for password in ["secret", "other"] {
        for (from, name) in (10..30).map(|from| (from, format!("nobody{from}"))) {
            let before = watch.begun();
            let expected = if password == "secret" { wrong(1) } else { wrong(2) };
            assert_eq!(verify(&users, from, &name, password).await, expected, "{name}");
            assert_eq!(watch.begun(), before + 1, "{name}");
        }
    }
    let mut passes = watch.change(|watched| std::mem::take(&mut watched.passes));
    passes.sort_unstable();
    passes.dedup();
    assert_eq!(passes, [1, 2], "parameters of all users are met");
    // One name is verified against the same parameters always.
    for password in 0..4 {
        assert!(verify(&users, 40, "nobody", &password.to_string()).await.is_err());
    }
    let passes = watch.change(|watched| std::mem::take(&mut watched.passes));
    assert!(passes.len() == 4 && passes.windows(2).all(|pair| pair[0] == pair[1]), "{passes:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_slowed_and_locked_out_as_a_known_one() {
    for name in ["erp", "nobody"] {
        let (users, watch) = users();
        for (guess, delay) in [("1", 1), ("2", 2), ("3", 4), ("4", 5), ("5", 5)] {
            assert_eq!(verify(&users, 1, name, guess).await, wrong(delay), "{name}");
        }
        let locked = Err(LoginRefused::LockedOut { wait: Duration::from_mins(1) });
        assert_eq!(verify(&users, 1, name, "secret").await, locked, "{name}");
        assert_eq!(watch.begun(), 5, "nothing is verified for who is locked out");
    }
    let (users, _) = users();
    for guess in 0..5 {
        assert!(verify(&users, 1, "erp", &guess.to_string()).await.is_err());
    }
    let later = users.verify(client(1), &credentials("erp", "secret"), || at(161)).await;
    assert_eq!(later.as_deref(), Ok("erp"), "a lockout ends");
}

#[tokio::test(start_paused = true)]
async fn a_device_with_an_old_password_costs_one_verification_and_locks_nobody_out() {
    let (users, watch) = users();
    for second in 0..500 {
        let answer = users.verify(client(1), &credentials("ERP", "old"), || at(second * 60)).await;
        assert_eq!(answer, wrong(1));
    }
    assert_eq!(watch.begun(), 1);
    let answer = users.verify(client(1), &credentials("erp", "secret"), || at(500 * 60)).await;
    assert_eq!(answer.as_deref(), Ok("erp"));
}

#[tokio::test(start_paused = true)]
async fn a_mapped_address_is_the_one_that_it_maps() {
    let (users, watch) = users();
    let mapped = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
    assert_ne!(mapped, IpAddr::from(Ipv6Addr::LOCALHOST));
    assert_eq!(verify(&users, 1, "erp", "wrong").await, wrong(1));
    assert_eq!(users.verify(mapped, &credentials("erp", "wrong"), || at(100)).await, wrong(1));
    assert_eq!(watch.begun(), 1, "it was wrong from there before");
}

/// Starts a login that stands in a verification or waits for one.
fn start(users: &Arc<Users>, from: u8, name: &str, password: &str) -> task::JoinHandle<Result<Arc<str>, LoginRefused>> {
    let (users, name, password) = (Arc::clone(users), name.to_owned(), password.to_owned());
    tokio::spawn(async move { verify(&users, from, &name, &password).await })
}

async fn until(mut holds: impl FnMut() -> bool) {
    // The machine's own time: the runtime's stands still meanwhile.
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "what the test waits for does not come");
        task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_verifications_run_at_a_time_and_one_of_each_client() {
    let (users, watch) = users();
    watch.shut(true);
    let mut logins: Vec<_> = (0..10).map(|guess| start(&users, 1, "erp", &guess.to_string())).collect();
    until(|| watch.begun() == 1).await;
    logins.extend((0..3).map(|guess| start(&users, 2, "erp", &guess.to_string())));
    until(|| watch.begun() == 2).await;
    logins.extend((3..20).map(|from| start(&users, from, "erp", "guess")));
    until(|| users.places.visitors() == 30).await;
    assert_eq!(watch.change(|watched| (watched.begun, watched.running)), (2, 2), "one of each of two clients");
    watch.shut(false);
    let mut refused = [0, 0];
    // In ten seconds a client is told four times that it was wrong: after 1, 2, 4 and 5 more.
    for login in logins {
        match login.await.unwrap() {
            Err(LoginRefused::Wrong { .. }) => refused[0] += 1,
            Err(LoginRefused::Busy) => refused[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, [24, 6], "of the ten guesses four were verified");
    assert_eq!(watch.change(|watched| (watched.begun, watched.most)), (24, 2));
    assert_eq!(users.places.visitors(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_with_the_same_password_find_it_remembered() {
    let (users, watch) = users();
    watch.shut(true);
    let logins: Vec<_> = (0..50).map(|_| start(&users, 1, "erp", "secret")).collect();
    until(|| users.places.visitors() == 50).await;
    watch.shut(false);
    for login in logins {
        assert_eq!(login.await.unwrap().as_deref(), Ok("erp"));
    }
    assert_eq!(watch.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn guesses_at_the_same_time_are_no_faster_for_who_is_never_locked_out() {
    let (users, watch) = users();
    assert_eq!(verify(&users, 1, "erp", "secret").await.as_deref(), Ok("erp"));
    let begun = time::Instant::now();
    let mut next = 0_u32;
    while begun.elapsed() < Duration::from_mins(10) {
        let guesses: Vec<_> = (next..next + 40).map(|guess| start(&users, 1, "erp", &guess.to_string())).collect();
        next += 40;
        for guess in guesses {
            assert!(matches!(guess.await.unwrap(), Err(LoginRefused::Wrong { .. } | LoginRefused::Busy)));
        }
    }
    let verified = watch.begun() - 1;
    assert!((60..=125).contains(&verified), "{verified} of {next} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn what_was_right_once_waits_for_no_guesser_at_the_same_address() {
    let (users, watch) = users();
    assert_eq!(verify(&users, 1, "erp", "secret").await.as_deref(), Ok("erp"));
    // None of them is done before all are there.
    watch.shut(true);
    let guesses: Vec<_> = (0..20).map(|guess| start(&users, 1, "crm@contoso.com", &guess.to_string())).collect();
    until(|| users.places.visitors() == 20).await;
    let begun = time::Instant::now();
    assert_eq!(verify(&users, 1, "erp", "secret").await.as_deref(), Ok("erp"));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    watch.shut(false);
    guesses.iter().for_each(task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn what_was_right_once_passes_a_lockout_but_only_ten_guesses_are_looked_up() {
    let locked = |answer| matches!(answer, Err(LoginRefused::LockedOut { .. }));
    for (guesses, passes) in [(9, true), (10, false)] {
        let (users, watch) = users();
        assert_eq!(verify(&users, 1, "erp", "secret").await.as_deref(), Ok("erp"));
        for guess in 0..5 {
            assert!(verify(&users, 2, "erp", &guess.to_string()).await.is_err());
        }
        for guess in 5..guesses {
            assert!(locked(verify(&users, 2, "erp", &guess.to_string()).await), "{guess}");
        }
        assert_eq!(verify(&users, 2, "erp", "secret").await.is_ok(), passes, "after {guesses} guesses");
        assert_eq!(watch.begun(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn guesses_that_are_given_up_while_they_wait_are_not_looked_up_for_ever() {
    let (users, watch) = users();
    assert_eq!(verify(&users, 1, "erp", "secret").await.as_deref(), Ok("erp"));
    watch.shut(true);
    let held = start(&users, 2, "crm@contoso.com", "wrong");
    until(|| watch.begun() == 2).await;
    for guess in 0..10 {
        let waiting = start(&users, 2, "erp", &guess.to_string());
        until(|| users.places.visitors() == 2).await;
        waiting.abort();
        until(|| users.places.visitors() == 1).await;
    }
    let right = start(&users, 2, "erp", "secret");
    until(|| users.places.visitors() == 2).await;
    watch.shut(false);
    assert!(held.await.unwrap().is_err());
    assert_eq!(right.await.unwrap().as_deref(), Ok("erp"), "in its turn");
}

#[tokio::test(start_paused = true)]
async fn a_lockout_is_reckoned_from_the_verification_not_from_the_wait_before_it() {
    let (users, _) = users();
    let asked = AtomicU64::new(0);
    for guess in 0..5 {
        // The second time that it is asked, ten seconds later, is after the wait.
        let now = || at(100 + 10 * (asked.fetch_add(1, Ordering::SeqCst) % 2));
        assert!(users.verify(client(1), &credentials("erp", &guess.to_string()), now).await.is_err());
    }
    let answer = users.verify(client(1), &credentials("erp", "secret"), || at(110)).await;
    assert_eq!(answer, Err(LoginRefused::LockedOut { wait: Duration::from_mins(1) }));
}

#[tokio::test]
async fn who_waits_too_long_is_told_so_and_not_counted() {
    let erp = User::cheap("secret", 1, &[]);
    let (users, watch) = users_with(Places::waiting_at_most(Duration::from_millis(20)), &[("erp", erp)]);
    watch.shut(true);
    let held = start(&users, 1, "erp", "secret");
    until(|| watch.begun() == 1).await;
    for guess in 0..10 {
        assert_eq!(verify(&users, 1, "erp", &guess.to_string()).await, Err(LoginRefused::Busy));
    }
    watch.shut(false);
    assert_eq!(held.await.unwrap().as_deref(), Ok("erp"));
    assert_eq!(verify(&users, 1, "erp", "guess").await, wrong(1), "it is the first mistake");
}

#[tokio::test(start_paused = true)]
async fn a_guess_counts_when_the_client_goes_before_the_answer() {
    let (users, watch) = users();
    watch.shut(true);
    for guess in 0..5 {
        time::advance(lockout::LONGEST_DELAY).await;
        let login = start(&users, 1, "erp", &guess.to_string());
        until(|| watch.begun() == guess + 1).await;
        login.abort();
        assert!(login.await.unwrap_err().is_cancelled());
        assert_eq!(users.places.visitors(), 1, "its place is taken until the verification ends");
        watch.shut(false);
        until(|| users.places.visitors() == 0).await;
        watch.shut(true);
    }
    watch.shut(false);
    assert!(matches!(verify(&users, 1, "erp", "secret").await, Err(LoginRefused::LockedOut { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_failed_verification_says_nothing_of_the_password_and_a_panic_neither() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let verifier = move |_: &[u8], _: &phc::PasswordHash| {
        assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "the first panics");
        Err(NotVerifiable)
    };
    let users = BTreeMap::from([("erp".to_owned(), User::cheap("secret", 1, &[]))]);
    let users = Users::with(&users, Places::new(), Arc::new(verifier));
    for _ in 0..10 {
        assert_eq!(verify(&users, 1, "erp", "secret").await, Err(LoginRefused::Busy));
    }
    assert_eq!(count.load(Ordering::SeqCst), 10);
    assert_eq!(users.places.visitors(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_users_nobody_logs_in() {
    let (users, watch) = users_with(Places::new(), &[]);
    assert_eq!(verify(&users, 1, "erp", "secret").await, wrong(1));
    assert_eq!(watch.begun(), 0);
    assert!(!users.may_send_as("erp", &"erp@contoso.com".parse().unwrap()));
}

#[test]
fn a_user_sends_as_whom_its_patterns_name() {
    let (users, _) = users();
    for (user, sender, expected) in [
        ("erp", "anybody@example.com", true),
        ("ERP", "anybody@example.com", true),
        ("crm@contoso.com", "anybody@contoso.com", true),
        ("CRM@contoso.com", "Anybody@CONTOSO.COM", true),
        ("crm@contoso.com", "boss@fabrikam.com", true),
        ("crm@contoso.com", "Boss@Fabrikam.com", true),
        ("crm@contoso.com", "clerk@fabrikam.com", false),
        ("crm@contoso.com", "boss@fabrikam.com.example", false),
        ("crm@contoso.com", "anybody@sub.contoso.com", false),
        ("nobody", "anybody@contoso.com", false),
    ] {
        assert_eq!(users.may_send_as(user, &sender.parse().unwrap()), expected, "{user} as {sender}");
    }
}
