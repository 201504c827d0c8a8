//! `docs/performance.md`, made whole from a run, as `docs/configuration.md` is made from the program.
//!
//! What is true of every run stands here as prose; everything else comes from the run.

use crate::figure::{Experiment, Run};

use super::budget;
use super::chart::{self, Chart};
use super::section::{self, Section};
use super::table::{Side, Style, Table};
use super::wording;

const BEGINNING: &str = "\
<!-- Made by the benchmark in tests/bench; do not edit. -->
# Performance

What the relay does beside other ways to send old software's mail to Microsoft 365: how fast it takes messages and sends them
on, and what that costs. Every subject is measured in the same run on the same machine, with the same load and the same
upstream. So the ratios tell more than the numbers: another machine gives other numbers.
";

const READING: &str = "\
## How to read it

- A figure is the **median** of the repetitions. Behind it stands the **noise**: half of what lies between the lowest and the
  highest repetition, as a share of the median. `8,000 ± 12 %` was between roughly 7,040 and 8,960. A single repetition has no
  noise, and its figure has none behind it: what is measured once (idle, counted calls, a start over a full queue), and the
  99.9th percentile, for which the latencies of all repetitions are put together.
- Two figures whose ranges overlap do not differ. On a machine that is shared, do not trust a difference below a factor of 1.5
  even where the noise is small: it tells only how much the repetitions of this run differ.
- Load, subject and upstream share the processors. What the subject leaves over, the others use, so a rate is not that of
  a subject on a machine of its own. CPU for each message does not suffer from that.
- A dash is a figure that does not exist; [Remarks](#remarks) has the reasons that are known.
- `kept` are clients that send many messages on each connection, opened before the measurement; `single` are those that open
  a connection for each message.
";

const EXCHANGE: &str = "\
## What is not measured

- **Exchange Online.** Upstream takes mail at once, or with a fixed delay in [Distance](#distance). The real one limits
  each mailbox to a number of messages a minute, far below every rate here. What remains of the rates is how long a client waits
  and what else the machine can do meanwhile.
- **A network.** All runs over loopback.
";

const NO_DIRECT: &str = "\
- **`direct` mode**, which is not built.
";

const REST: &str = "\
- **The container image**: the run has no container engine.
- **A power cut.** That acceptance is durable is the matter of the tests; the benchmark counts the syncs.
- **Days.** A run shows no leak that takes longer than the run.
";

/// The page.
pub(super) fn page(run: &Run) -> String {
    let (sections, charts) = (section::sections(run), chart::charts(run));
    let mut parts = vec![BEGINNING.to_owned(), circumstances(run), repeating(), subjects(run), READING.to_owned()];
    parts.push(budgets(run));
    let known = Experiment::ALL.into_iter().filter(|experiment| run.knew(*experiment));
    parts.extend(known.map(|experiment| chapter(experiment, &sections, &charts)));
    parts.push(remarks(run));
    parts.push(not_measured(run));
    parts.join("\n")
}

/// The value of `--only` that measures an experiment.
fn selection(experiment: Experiment) -> &'static str {
    match experiment {
        Experiment::Acceptance | Experiment::Through => "matrix",
        // The program's size is looked at in every run.
        Experiment::Program => "limits",
        _ => experiment.name(),
    }
}

/// The command that makes the figures of an experiment alone.
fn command(experiment: Experiment) -> String {
    let command = format!("cargo run --release -p bench -- run --only {}", selection(experiment));
    match experiment {
        // Counting slows a subject down, and so what is counted is not timed.
        Experiment::Acceptance | Experiment::Through => {
            format!("{command}\ncargo run --release -p bench -- run --only calls     # system calls and syncs")
        }
        _ => command,
    }
}

fn circumstances(run: &Run) -> String {
    format!(
        "This run began at {} and took {}, on {}. It was made by `{}`.\n",
        run.begun,
        wording::duration(run.seconds),
        wording::machine(&run.machine),
        run.command
    )
}

fn repeating() -> String {
    "\
## How to repeat it

```sh
cargo run --release -p bench -- --help          # what there is to choose
cargo run --release -p bench -- subjects        # which peers are installed, and how to install the others
cargo run --release -p bench -- run             # everything; as root, since Postfix is started by root alone
cargo run --release -p bench -- compare ONE.json OTHER.json
```

On Debian the peers come by

```sh
apt-get install postfix libsasl2-modules strace
python3 -m venv target/peers && target/peers/bin/pip install -r tests/bench/peers/requirements.txt
cargo run --release -p bench -- run --python target/peers/bin/python
```

and Postfix's plugin by `apt-get install sasl-xoauth2` where the distribution has it, else built from its sources
(<https://github.com/tarickb/sasl-xoauth2>). A peer that is not installed is left out, and the run says so. Each section
below names the command that makes just its figures; a relay before a change is measured beside the one behind it by
`run --before PROGRAM`.
"
    .to_owned()
}

fn subjects(run: &Run) -> String {
    let mut table = Table::new("");
    for name in ["subject", "what it is", "how it is set up"] {
        table.column(name, Side::Left);
    }
    for subject in &run.subjects {
        table.row(vec![format!("`{}`", subject.name), subject.product.clone(), subject.setup.clone()]);
    }
    format!("## Who is measured\n\n{}", table.show(Style::Markdown))
}

fn budgets(run: &Run) -> String {
    format!(
        "\
## Budgets

What we want to keep, and whether this run kept it. The medians judge; `within the noise` is a verdict that the noise could
turn round. A value with `×` is the relay's over that of the peer in the note: acceptance, CPU and large messages go against
the better of the two Postfix set-ups, drain and through against Postfix with sasl-xoauth2.

{}",
        budget::table(run).show(Style::Markdown)
    )
}

fn chapter(experiment: Experiment, sections: &[Section], charts: &[Chart<'_>]) -> String {
    let title = wording::title(experiment);
    let beginning = format!("## {title}\n\n{}\n\n```sh\n{}\n```\n", about(experiment), command(experiment));
    let Some(section) = sections.iter().find(|section| section.experiment == experiment) else {
        return format!("{beginning}\nThis run has no figures of it.\n");
    };
    let mut parts = vec![beginning];
    parts.extend(charts.iter().filter(|chart| chart.experiment == experiment).map(image));
    parts.push(section.show(Style::Markdown));
    parts.join("\n")
}

fn image(chart: &Chart<'_>) -> String {
    format!("![{}](performance/{})\n", chart.title, chart.file())
}

fn about(experiment: Experiment) -> &'static str {
    match experiment {
        Experiment::Acceptance => {
            "\
Clients hand over messages while nothing is sent on. Each has sent one before, so that the subject is warm. Latency is from
MAIL to the final reply, with `single` connections from the connection's begin. Subjects without a queue cannot take a
message without sending it, and are missing. `single` is measured with 10 KiB alone, Postfix with 1,000 clients only where
they are `kept` and send 10 KiB: it needs two processes for each."
        }
        Experiment::Drain => {
            "\
A queue of 2,000 messages, with 100,000 where the table says so (from `--only start`), is sent on while nothing is taken.
Upstream demands STARTTLS and a login, and answers at once. The rate is from the first message to the last; CPU is all that
the subject used since its start."
        }
        Experiment::Through => {
            "\
Both together: from the first client's MAIL until upstream has the last message. The peers without a queue are measured with
fewer clients, since emailproxy thinks for most of a second about each login."
        }
        Experiment::Latency => {
            "\
What a subject without a queue adds to the time that upstream itself takes. One client hands over messages of 10 KiB one after
the other on a connection that it keeps, by turns to the subject and, as `raw`, straight to the upstream, with STARTTLS and
AUTH XOAUTH2 on a connection that is kept as well. Latency is from MAIL to the final reply; what is added is the difference of
the medians. With an upstream 30 ms away the time tells how many round trips a message takes: `raw` waits for four, for MAIL,
RCPT, DATA and the body, and a subject that answers MAIL itself can do with three."
        }
        Experiment::Distance => {
            "\
A full queue is sent on to an upstream that is 30 ms away and takes 100 ms for each final reply. On one connection a message
costs at least 160 ms then: 30 ms for MAIL, RCPT and DATA in one flight, 30 ms for the body, and 100 ms until the reply. The
ideal rate is what so many connections allow if all of them are busy all the time."
        }
        Experiment::Large => {
            "\
One large message: how long it takes until the client has its final reply and until upstream has the message, and by how
much it moves the highest memory."
        }
        Experiment::Idle => {
            "\
Nothing happens: freshly started, and with idle sessions open. Memory of one process is its resident set, of several the sum
of their private parts. Context switches tell how often something wakes an idle subject. The chart has the highest memory
under load beside them. 10,000 sessions are opened to the relay alone."
        }
        Experiment::Start => {
            "\
From the start of the process to its first greeting, with an empty queue and, of the relay alone, with messages waiting."
        }
        Experiment::Limits => {
            "\
What the machine can do without any subject: one writer that syncs each message, and the load straight into the upstream.
A group of messages that shares a sync can be faster than the first; nothing carries more SMTP than the others."
        }
        Experiment::Program => {
            "\
The program as a file."
        }
    }
}

fn remarks(run: &Run) -> String {
    let mut text = "## Remarks\n\n".to_owned();
    if run.remarks.is_empty() {
        text.push_str("None: nobody was left out, no cell failed, and no message was lost or came twice.\n");
    }
    text.extend(run.remarks.iter().map(|remark| format!("- {remark}\n")));
    text
}

/// A run from before direct mode could be measured is one of a relay that had none.
fn not_measured(run: &Run) -> String {
    let direct = if run.knew(Experiment::Latency) { "" } else { NO_DIRECT };
    format!("{EXCHANGE}{direct}{REST}")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::sample;
    use super::*;

    #[test]
    fn every_experiment_has_its_chapter_and_its_command_even_without_figures() {
        for run in [sample::run(), sample::run_of(vec![])] {
            let page = page(&run);
            for experiment in Experiment::ALL {
                assert!(page.contains(&format!("\n## {}\n", wording::title(experiment))), "{experiment:?}");
                assert!(page.contains(&format!("run --only {}\n", selection(experiment))), "{experiment:?}");
            }
        }
        assert_eq!(page(&sample::run_of(vec![])).matches("This run has no figures of it.").count(), 10);
        assert!(!page(&sample::run()).contains("This run has no figures of it."));
    }

    #[test]
    fn a_run_from_before_an_experiment_has_no_chapter_of_it() {
        let mut run = sample::run_of(vec![]);
        assert!(!page(&run).contains("is not built"));
        run.experiments.retain(|experiment| *experiment != Experiment::Latency);
        let page = page(&run);
        assert!(!page.contains("## Latency") && page.contains("- **`direct` mode**, which is not built.\n"), "{page}");
        assert_eq!(page.matches("This run has no figures of it.").count(), 9);
    }

    #[test]
    fn every_command_that_is_shown_is_one() {
        let page = page(&sample::run_of(vec![]));
        let mut count = 0;
        for line in page.lines().filter(|line| line.starts_with("cargo run --release -p bench -- ")) {
            let words = line.split(" #").next().unwrap_or_default().split_whitespace().skip(6);
            let parsed = crate::cli::Cli::try_parse_from(std::iter::once("bench").chain(words));
            assert!(parsed.is_ok() || line.contains("--help"), "{line}");
            count += 1;
        }
        assert!(count > Experiment::ALL.len(), "{count} commands");
    }

    #[test]
    fn every_chart_is_shown_once_and_every_subject_and_remark_is_told() {
        let run = sample::run();
        let page = page(&run);
        for chart in chart::charts(&run) {
            assert_eq!(page.matches(&format!("](performance/{})", chart.file())).count(), 1, "{}", chart.name);
        }
        for subject in &run.subjects {
            assert!(page.contains(&format!("| `{}` | {} |", subject.name, subject.product)), "{}", subject.name);
        }
        assert!(page.contains(&format!("- {}\n", run.remarks[0])) && page.contains(&run.command));
    }

    #[test]
    fn tables_and_lists_are_parted_from_prose_by_an_empty_line() {
        let page = page(&sample::run());
        let lines: Vec<_> = page.lines().collect();
        for pair in lines.windows(2) {
            let begins = |mark: &str| pair[1].starts_with(mark) && !pair[0].starts_with(mark);
            assert!(!(begins("|") || begins("#") && !pair[0].starts_with("<!--")) || pair[0].is_empty(), "{pair:?}");
        }
        assert!(!page.contains("\n\n\n") && page.ends_with('\n'));
    }
}
