//! Sockets handed over by systemd, without systemd: whoever starts the relay opens them and names them in the environment.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::{Client, RECIPIENT, Relay, World, binary, field, free_port, message, peer};

/// Opens a socket for each word `NAME=KIND`, moves them to descriptor 3 and on, and becomes the program behind `--`.
const HAND_OVER: &str = "
import fcntl, os, socket, sys
at = sys.argv.index('--')
names, kept = [], []
for word in sys.argv[1:at]:
    name, kind = word.split('=')
    type = socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM
    one = socket.socket(socket.AF_INET6 if kind == 'both' else socket.AF_INET, type)
    if kind == 'both':
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(('::' if kind == 'both' else '127.0.0.1', 0))
    if kind in ('tcp', 'both'):
        one.listen()
    names.append(name)
    kept.append(fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100))
for at_fd, fd in enumerate(kept):
    os.dup2(fd, 3 + at_fd, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=':'.join(names))
os.execv(sys.argv[at + 1], sys.argv[at + 1:])
";

/// The relay of `world` with its listener on `systemd:smtp`, started with these sockets; none without Python.
pub(crate) fn handed_over(world: &World, sockets: &[&str]) -> Option<Command> {
    let mut command = Command::new(peer("python3")?);
    command.args(["-c", HAND_OVER]).args(sockets).arg("--").arg(binary().get_program());
    command.args(["run", "--config"]).arg(world.configuration());
    command.env("XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS", "systemd:smtp");
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_serves_all_sockets_of_its_name_and_those_of_no_listener_are_told() {
    let world = World::new().await;
    let Some(command) = handed_over(&world, &["smtp=tcp", "other=tcp", "smtp=both"]) else { return };
    let relay = Relay::spawn(command).await;
    let lines = relay.log().text();
    let listening = lines.lines().filter(|line| line.contains("\"listening\""));
    let addresses: Vec<SocketAddr> = listening.map(|line| field(line, "address").parse().unwrap()).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for (at, address) in addresses.iter().enumerate() {
        // The second takes IPv4 too, and its clients are in 127.0.0.0/8 all the same.
        let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
        let mut client = Client::connect(address).await.unwrap();
        let reply = client.send(&[RECIPIENT], &message(&format!("socket{at}"))).await.unwrap();
        assert_eq!(reply.code(), 250, "{reply:?}");
    }
    world.wait_for(2).await;
    let untaken = relay.log().wait_for(|line| line.contains("a socket that no listener names"));
    assert_eq!(field(&untaken, "socket"), "other");
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_cannot_be_used_stop_the_start_with_the_remedy() {
    let world = World::new().await;
    for (sockets, said) in [
        (&["smtps=tcp", "submission=tcp"][..], "only smtps, submission; write FileDescriptorName=smtp"),
        (&["smtp=udp"], "is no TCP socket"),
        (&["smtp=bound"], "must have Accept=no"),
    ] {
        let Some(command) = handed_over(&world, sockets) else { return };
        let (status, log) = Relay::spawn_unready(command).end().await;
        assert_eq!(status.code(), Some(69), "{log}");
        assert!(log.contains("listener.local: ") && log.contains(said), "{said}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_by_hand_says_that_nothing_was_handed_over() {
    let world = World::new().await;
    let start = |variables: &[(&str, &str)]| {
        let mut command = binary();
        command.args(["run", "--config"]).arg(world.configuration());
        command.env("XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS", "systemd:smtp").envs(variables.iter().copied());
        Relay::spawn_unready(command).end()
    };
    for (variables, said) in [
        (&[][..], "LISTEN_FDS is not set"),
        (&[("LISTEN_FDS", "1")], "LISTEN_PID is not set"),
        // Somebody else's: never the descriptors that we happen to have.
        (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")], "must start it with `exec`"),
    ] {
        let (status, log) = start(variables).await;
        assert_eq!(status.code(), Some(69), "{log}");
        assert!(log.contains(said) && log.contains("systemd-socket-activate"), "{said}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemds_own_tool_starts_it_with_the_first_client() {
    let Some(tool) = peer("systemd-socket-activate") else { return };
    let world = World::new().await;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(tool);
    // It hands on nothing of the environment but what it is told.
    command.env("XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS", "systemd:smtp");
    command.args(["--setenv=XOAUTH2_RELAY__LISTENER__LOCAL__ADDRESS", "--fdname=smtp"]);
    command.arg(format!("--listen={address}")).arg(binary().get_program());
    command.args(["run", "--config"]).arg(world.configuration());
    let relay = Relay::spawn_unready(command);
    let knock = async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, knock).await.unwrap();
    tokio::task::block_in_place(|| relay.log().wait_for(|line| line.contains("\"ready\"")));
    let mut client = Client::connect(address).await.unwrap();
    assert_eq!(client.send(&[RECIPIENT], &message("activated")).await.unwrap().code(), 250);
    world.wait_for(1).await;
}
