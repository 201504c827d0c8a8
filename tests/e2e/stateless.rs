//! A relay whose listeners are all direct and whose tenants log in by themselves: it has no state directory, and writes nothing
//! anywhere. What becomes of a message there is not looked at here.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, World, binary, free_port, peer, skip, until};

/// The world's configuration without a state directory; `tables` beside it.
fn direct(world: &World, tables: &str) -> String {
    let text = queued(world, tables);
    let text = text.replace("[listener.local]\n", "[listener.local]\ndelivery = \"direct\"\n");
    let kept = text.lines().filter(|line| !line.starts_with("directory = ") && !line.starts_with("min_free_bytes = "));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// The same with a queue.
fn queued(world: &World, tables: &str) -> String {
    format!("{}\n{tables}\n", world.configuration_text())
}

fn write(world: &World, text: &str) -> PathBuf {
    let path = world.path("xoauth2-relay.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The binary as a container without a volume starts it: no home, no directories of a service manager, nothing around it.
fn bare(world: &World) -> Command {
    let empty = world.path("empty");
    std::fs::create_dir_all(&empty).unwrap();
    std::fs::set_permissions(&empty, PermissionsExt::from_mode(0o555)).unwrap();
    let mut command = binary();
    command.current_dir(empty);
    for variable in ["HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR"] {
        command.env_remove(variable);
    }
    command
}

/// `run` in front of the same, by whatever `before` is.
fn run(world: &World, before: &[&str], configuration: &Path) -> Command {
    let bare = bare(world);
    let mut command = match before.split_first() {
        None => bare,
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .arg(bare.get_program())
                .current_dir(world.path("empty"))
                .stdin(std::process::Stdio::null());
            for (variable, value) in bare.get_envs() {
                match value {
                    Some(value) => command.env(variable, value),
                    None => command.env_remove(variable),
                };
            }
            command
        }
    };
    command.args(["run", "--config"]).arg(configuration);
    command
}

/// Runs a command of the binary with the world's configuration: exit code, standard output, standard error.
async fn ask(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = bare(world);
    command.args(arguments).arg("--config").arg(world.path("xoauth2-relay.toml"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Everything below `root`: what it is, how long, and when it was written.
fn listing(root: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            found.insert(path, (metadata.mode(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    found
}

async fn livez(port: u16) -> String {
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    said.await.unwrap()
}

/// It lives: it greets, is alive over HTTP, has asked for its token and carries a message.
async fn lives(world: &World, relay: &Relay, http: u16) {
    let mut client = Client::connect(relay.address).await.unwrap();
    assert!(client.command("EHLO test.local").await.unwrap().is_positive());
    assert!(livez(http).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(until(PATIENCE, || world.sandbox.counters().tokens_issued > 0).await, "a token was asked for");
    let taken = client.send(&[RECIPIENT], b"From: scanner@contoso.com\r\nSubject: x\r\n\r\nx").await.unwrap();
    assert!(taken.is_positive() && taken.text().contains("Hostname="), "{taken}");
    assert_eq!(client.command("QUIT").await.unwrap().code(), 221);
}

/// With `/livez` at `port`.
fn with_http(text: &str, port: u16) -> String {
    text.replace("[http]\naddress = \"\"", &format!("[http]\naddress = \"127.0.0.1:{port}\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_needed_and_nothing_is_left_anywhere() {
    let world = World::new().await;
    let http = free_port();
    let configuration = write(&world, &with_http(&direct(&world, ""), http));
    let command = run(&world, &[], &configuration);
    let before = listing(world.directory.path());
    let relay = Relay::spawn(command).await;
    lives(&world, &relay, http).await;
    let (code, said, complaint) = ask(&world, &["status", "--check"]).await;
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "what a container's health check asks");
    assert!(said.starts_with("healthy, as far as /livez tells"), "{said}");
    for (arguments, exit) in [(&["status"][..], 69), (&["reload"], 69), (&["queue", "reroute", "1-1"], 69)] {
        let (code, said, complaint) = ask(&world, arguments).await;
        assert_eq!((code, said.as_str()), (Some(exit), ""), "{arguments:?} {complaint}");
        let sentence = "this relay runs without a control socket";
        assert!(complaint.contains(sentence) && complaint.contains("control.socket"), "{arguments:?} {complaint}");
    }
    assert_eq!(listing(world.directory.path()), before, "while it runs");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(listing(world.directory.path()), before, "and afterwards");
    for said in ["this relay has no state directory", "this relay has no control socket"] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(said)).collect();
        assert!(matches!(lines.as_slice(), [line] if line.contains("\"INFO\"")), "{said}: {lines:?}");
    }
    assert!(!log.contains("\"WARN\"") && !log.contains("\"ERROR\""), "{log}");
}

/// System calls with a file name that change nothing.
const READING: [&str; 14] = [
    "execve",
    "access",
    "faccessat",
    "faccessat2",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "readlink",
    "readlinkat",
    "getcwd",
    "chdir",
    "inotify_add_watch",
];

/// Why a line of strace's shows that something is written; none if it does not.
fn writes(line: &str) -> Option<&'static str> {
    // `1234 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3`; with a signal or an exit it has no call.
    let call = line.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    let (name, arguments) = call.split_once('(')?;
    let reads = |flags: &str| {
        flags.contains("O_RDONLY") && !["O_CREAT", "O_TRUNC", "O_APPEND"].iter().any(|flag| flags.contains(flag))
    };
    match name {
        // A call that the end of the process cut short before strace knew which it was.
        "???" => None,
        _ if call.starts_with('<') || call.starts_with('+') || call.starts_with('-') => None,
        "open" | "openat" | "openat2" if arguments.contains("\"/dev/null\"") || reads(arguments) => None,
        "open" | "openat" | "openat2" => Some("opened for writing"),
        "bind" if arguments.contains("AF_UNIX") => Some("a socket in the file system"),
        "bind" => None,
        name if READING.contains(&name) => None,
        _ => Some("a change of the file system"),
    }
}

#[test]
fn the_judge_of_system_calls_tells_writing_from_reading() {
    for (line, is_writing) in [
        ("1 openat(AT_FDCWD, \"/etc/hosts\", O_RDONLY|O_CLOEXEC) = 3", false),
        ("1 openat(AT_FDCWD, \"/dev/null\", O_RDWR) = 3", false),
        ("1 openat(AT_FDCWD, \"/x\", O_RDWR|O_CREAT, 0600) = 3", true),
        ("1 openat(AT_FDCWD, \"/x\", O_RDONLY|O_CREAT, 0600) = 3", true),
        ("1 openat(AT_FDCWD, \"/x\", O_WRONLY <unfinished ...>", true),
        ("1 mkdir(\"/var/lib/xoauth2-relay\", 0700) = -1 EROFS", true),
        ("1 unlinkat(AT_FDCWD, \"/x\", 0) = 0", true),
        ("1 bind(5, {sa_family=AF_INET, sin_port=htons(0)}, 16) = 0", false),
        ("1 bind(5, {sa_family=AF_UNIX, sun_path=\"/x\"}, 16) = 0", true),
        ("1 <... openat resumed>) = 3", false),
        ("1 +++ exited with 0 +++", false),
        ("1 ???( <unfinished ...>", false),
        ("1 --- SIGTERM {si_signo=SIGTERM} ---", false),
    ] {
        assert_eq!(writes(line).is_some(), is_writing, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_opened_for_writing() {
    if peer("strace").is_none() {
        return;
    }
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        skip("processes cannot be traced here");
        return;
    }
    let world = World::new().await;
    let http = free_port();
    let configuration = write(&world, &with_http(&direct(&world, ""), http));
    let trace = world.path("trace").display().to_string();
    let relay =
        Relay::spawn(run(&world, &["strace", "-f", "-e", "trace=%file,bind", "-o", &trace], &configuration)).await;
    lives(&world, &relay, http).await;
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", relay.pid())).unwrap();
    let child = child.trim().to_owned();
    // Taking its configuration up anew writes nothing either.
    assert!(Command::new("kill").args(["-HUP", &child]).status().unwrap().success());
    relay.log().wait_for(|line| line.contains("reloaded, nothing changed"));
    assert!(Command::new("kill").args(["-TERM", &child]).status().unwrap().success());
    let (status, log) = relay.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("xoauth2-relay.toml") && trace.contains("AF_INET"), "it was traced");
    let wrong: Vec<_> = trace.lines().filter_map(|line| Some((writes(line)?, line))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_read_only_is_enough() {
    if peer("unshare").is_none() {
        return;
    }
    // In a mount namespace of its own, whoever runs this.
    let read_only = "mount --make-rprivate / && mount -o remount,bind,ro / && ! touch \"$0\" 2>/dev/null";
    let world = World::new().await;
    let probe = world.path("probe").display().to_string();
    let tried = Command::new("unshare").args(["-rm", "sh", "-c", read_only, &probe]).output().unwrap();
    if !tried.status.success() {
        skip(&format!("no read-only root can be had here: {}", String::from_utf8_lossy(&tried.stderr)));
        return;
    }
    let http = free_port();
    let configuration = write(&world, &with_http(&direct(&world, ""), http));
    let script = format!("{read_only} && exec \"$@\"");
    let relay = Relay::spawn(run(&world, &["unshare", "-rm", "sh", "-c", &script, &probe], &configuration)).await;
    lives(&world, &relay, http).await;
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!Path::new(&probe).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_control_socket_status_tells_what_there_is_and_that_there_is_no_queue() {
    let world = World::new().await;
    let socket = world.path("run/control.sock");
    std::fs::create_dir(world.path("run")).unwrap();
    let configuration =
        write(&world, &direct(&world, &format!("[control]\nsocket = {:?}", socket.display().to_string())));
    let command = run(&world, &[], &configuration);
    let before = listing(world.directory.path());
    let relay = Relay::spawn(command).await;
    assert!(until(PATIENCE, || world.sandbox.counters().tokens_issued > 0).await);
    let mut fetched = None;
    while fetched.is_none() {
        let (code, said, complaint) = ask(&world, &["status", "--json"]).await;
        assert_eq!(code, Some(0), "{complaint}");
        let told: Value = serde_json::from_str(&said).unwrap();
        fetched = (told["tokens"][0]["state"] == "fetched").then_some(told);
    }
    let told = fetched.unwrap();
    assert_eq!((&told["queue"], &told["state"]), (&Value::Null, &Value::from("serving")), "{told}");
    assert_eq!(told["no_queue"], "every listener is direct, and nothing is stored");
    assert_eq!(told["listeners"][0]["name"], "local");
    assert_eq!((&told["lanes"][0]["mailbox"], &told["lanes"][0]["queued"]), (&Value::from("scanner"), &Value::Null));
    let (code, screen, complaint) = ask(&world, &["status"]).await;
    assert_eq!(code, Some(0), "{complaint}");
    assert!(screen.contains("\nQUEUE  none: every listener is direct, and nothing is stored\n"), "{screen}");
    assert!(screen.contains("All is well.") && !screen.contains("QUEUED"), "{screen}");
    let width = screen.lines().map(|line| line.chars().count()).max();
    assert!(width <= Some(80), "{screen}");
    assert_eq!(ask(&world, &["status", "--check"]).await.0, Some(0));
    let (code, _, complaint) = ask(&world, &["queue", "reroute", "1-1"]).await;
    assert_eq!(code, Some(69));
    assert!(complaint.contains("this relay has no queue: every listener is direct"), "{complaint}");
    let (code, _, complaint) = ask(&world, &["login"]).await;
    assert_eq!(code, Some(64));
    assert!(complaint.contains("users sign in for no mailbox"), "{complaint}");
    let new: Vec<_> = listing(world.directory.path()).into_keys().filter(|path| !before.contains_key(path)).collect();
    assert!(new.iter().all(|path| path.starts_with(world.path("run"))), "{new:?}");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!socket.exists());
}

/// Entra ID counts, whatever we forget: five requests in five minutes, however often the tenant's section changes.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_token_requests_holds_over_reloads_in_memory() {
    let world = World::new().await;
    let control = format!("[control]\nsocket = {:?}", world.path("control.sock").display().to_string());
    let configured = |external: u32| {
        let text = direct(&world, &control);
        write(
            &world,
            &text.replace(
                "[tenant.contoso]\n",
                &format!("[tenant.contoso]\nexternal_recipients_per_day = {external}\n"),
            ),
        )
    };
    let relay = Relay::spawn(run(&world, &[], &configured(100))).await;
    for issued in 1..=5 {
        let counters = || world.sandbox.counters();
        assert!(until(PATIENCE, || counters().tokens_issued == issued).await, "{:?}", counters());
        configured(100 + u32::try_from(issued).unwrap());
        let (code, _, complaint) = ask(&world, &["reload"]).await;
        assert_eq!(code, Some(0), "{complaint}");
    }
    let (_, said, _) = ask(&world, &["status", "--json"]).await;
    let told: Value = serde_json::from_str(&said).unwrap();
    let time = |time: &Value| clock::WallTime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    let wait = time(&told["tokens"][0]["next_request"]).saturating_since(time(&told["taken_at"]));
    assert!(wait > std::time::Duration::from_mins(2), "{wait:?} {told}");
    assert_eq!(world.sandbox.counters().token_requests, 5);
    assert_eq!(relay.terminate().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_from_no_state_to_a_queue_and_back_is_refused_and_asks_for_a_restart() {
    let world = World::new().await;
    let configuration = write(&world, &direct(&world, ""));
    let relay = Relay::spawn(run(&world, &[], &configuration)).await;
    let refused = |relay: &Relay| {
        let before = relay.log().count(|line| line.contains("reload refused"));
        relay.signal("HUP");
        relay.log().wait_for_another(before, |line| line.contains("reload refused"));
    };
    write(&world, &queued(&world, ""));
    refused(&relay);
    let told = relay.log().wait_for(|line| line.contains("configuration mistake"));
    assert!(told.contains("listener.local.delivery") && told.contains("restart to change it"), "{told}");
    assert!(!world.path("state").exists());
    // What needs no state is followed.
    write(&world, &direct(&world, "").replace("[log]\n", "[log]\nlevel = \"debug\"\n"));
    relay.signal("HUP");
    relay.log().wait_for(|line| line.contains("configuration reloaded") && line.contains("log.level"));
    Client::connect(relay.address).await.unwrap();
    assert_eq!(relay.terminate().await.0.code(), Some(0));

    write(&world, &queued(&world, ""));
    let relay = Relay::spawn(run(&world, &[], &configuration)).await;
    write(&world, &direct(&world, ""));
    refused(&relay);
    let told = relay.log().wait_for(|line| line.contains("configuration mistake"));
    assert!(told.contains("must not be left behind") && told.contains("restart to change it"), "{told}");
    let mut client = Client::connect(relay.address).await.unwrap();
    let reply = client.send(&[crate::harness::RECIPIENT], &crate::harness::message("kept")).await.unwrap();
    assert_eq!(reply.code(), 250, "{reply}");
    world.wait_for(1).await;
    assert_eq!(relay.terminate().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_a_relay_runs_without() {
    let world = World::new().await;
    for (text, without) in [(direct(&world, ""), true), (queued(&world, ""), false)] {
        write(&world, &text);
        let (code, said, complaint) = ask(&world, &["check"]).await;
        assert_eq!(code, Some(0), "{complaint}");
        assert_eq!(said.contains("# No state directory: every listener is direct"), without, "{said}");
        assert_eq!(said.contains("# No control socket: "), without, "{said}");
        assert_eq!(said.lines().any(|line| line.starts_with("directory = ")), !without, "{said}");
        let (_, said, _) = ask(&world, &["check", "--json"]).await;
        let told: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(told["state_directory"].is_null(), without, "{told}");
        assert_eq!(told["control_socket"].is_null(), without, "{told}");
        assert_eq!(told["configuration"]["spool"]["directory"].is_null(), without, "{told}");
    }
}
