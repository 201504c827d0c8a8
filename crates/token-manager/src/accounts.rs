//! The request budgets of those who signed in: one for each account, whichever of its mailboxes asks. It opens each ledger once
//! for all of an application, and decides nothing.
//!
//! A service account with the right to send for forty shared mailboxes has forty refresh tokens that ask for the same thing:
//! Entra ID counts them together, while each mailbox has a ledger of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use clock::Clock;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::application::Application;
use crate::ledger::{Ledger, MemoryLedger};

/// What a mailbox whose token is good for a while leaves to those that have none.
pub(crate) const LEFT_TO_THE_NEEDY: usize = 4;

/// A ledger that many ask.
pub(crate) type AccountLedger = Arc<tokio::sync::Mutex<Ledger>>;

/// The ledgers of accounts that were opened.
#[derive(Default)]
pub(crate) struct Accounts {
    opened: Mutex<HashMap<String, Arc<OnceCell<AccountLedger>>>>,
}

impl Accounts {
    /// The ledger of `account` in `application`, which stands beside `own`, that of a mailbox.
    pub(crate) async fn ledger(
        &self,
        application: &Application,
        account: &str,
        own: &Ledger,
        clock: &Arc<dyn Clock>,
    ) -> AccountLedger {
        let cell = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(opened.entry(account.to_ascii_lowercase()).or_default())
        };
        let open = async || {
            let Some(path) = own.account_path(application, account) else {
                return Arc::new(tokio::sync::Mutex::new(MemoryLedger::default().ledger()));
            };
            let (on_thread, its_clock) = (path.clone(), Arc::clone(clock));
            let opened = spawn_blocking(move || Ledger::open_account(on_thread, &*its_clock)).await;
            // The thread can fail only as a whole runtime does; what it would have blocked is less than the answer is worth.
            Arc::new(tokio::sync::Mutex::new(opened.unwrap_or_else(|_| Ledger::open_account(path, &**clock))))
        };
        Arc::clone(cell.get_or_init(open).await)
    }
}
