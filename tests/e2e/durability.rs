//! The 250 as the operating system sees it: the sync comes before the reply.

use std::collections::HashMap;
use std::process::Command;

use crate::harness::{Client, RECIPIENT, Relay, World, message, peer, skip};

#[tokio::test(flavor = "multi_thread")]
async fn the_sync_comes_before_the_250() {
    let Some(strace) = peer("strace") else { return };
    let world = World::new().await;
    let trace = world.path("trace");
    let mut command = Command::new(strace);
    command.args([
        "--follow-forks",
        "--decode-fds=path",
        "--quiet=all",
        "--trace=fsync,fdatasync,write,writev,sendto,sendmsg",
        "--string-limit=40",
    ]);
    command.arg("--output").arg(&trace).arg(env!("CARGO_BIN_EXE_xoauth2-relay"));
    command.args(["run", "--config"]).arg(world.configuration());
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        skip("processes cannot be traced here");
        return;
    }
    let relay = Relay::spawn(command).await;
    let mut client = Client::connect(relay.address).await.unwrap();
    // One in the database, one in a file of its own.
    for body in [100, 100_000] {
        client.begin(&[RECIPIENT]).await;
        let text = [message("traced"), b"\r\n".to_vec(), vec![b'x'; body], b"\r\n.\r\n".to_vec()].concat();
        client.write(&text).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code(), 250);
    }
    drop(client);
    // strace passes no signal on; its child is asked itself.
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", relay.pid())).unwrap();
    Command::new("kill").args(["-TERM", child.trim()]).status().unwrap();
    relay.end().await;
    let trace = std::fs::read_to_string(trace).unwrap();
    let replies: Vec<_> = trace.match_indices("\"250 2.0.0 Queued as").map(|(at, _)| at).collect();
    assert_eq!(replies.len(), 2, "{trace}");
    // The small one: the database's log. The large one: its file, then the directory that names it, then the log.
    for (reply, wanted) in replies.into_iter().zip([&["queue.db-wal"][..], &["/bodies/", "/bodies", "queue.db-wal"]]) {
        let before = &trace[..reply];
        let go_ahead = before.rfind("\"354 Start mail input").unwrap();
        let synced = completed_syncs(&before[go_ahead..]);
        let mut rest = synced.iter();
        for place in wanted {
            let found = rest.any(|path| if *place == "/bodies" { path.ends_with(place) } else { path.contains(place) });
            assert!(found, "no sync of {place} in its place between the 354 and the 250, but {synced:?}");
        }
    }
}

/// The paths of the syncs that succeeded, in the order of their ends. strace tells a call that another thread interrupts in
/// two lines, `PID fsync(FD<path> <unfinished ...>` and `PID <... fsync resumed>) = 0`.
fn completed_syncs(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut ended = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim();
        let succeeded = call.ends_with("= 0");
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            let Some((path, _)) = call.split_once('<').and_then(|(_, rest)| rest.split_once('>')) else { continue };
            if succeeded {
                ended.push(path.to_owned());
            } else {
                begun.insert(pid, path);
            }
        } else if call.contains("sync resumed>") && succeeded {
            ended.extend(begun.remove(pid).map(str::to_owned));
        }
    }
    ended
}
