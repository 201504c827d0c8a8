//! The format of the transcripts in `tests/dialogs/`, described in the README there: text in, steps and checks out.
//!
//! It opens no file and no socket. A transcript is read for one server: lines that hold for another are not in what it gives.

/// The servers that the transcripts are played against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The relay itself, for which every line without a name in brackets is written.
    Relay,
    /// A real Postfix: `[postfix]` lines replace the line above.
    Postfix,
}

/// A transcript as one server meets it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Lines of the relay's listener section.
    pub(crate) listener: Vec<String>,
    /// Settings of Postfix's smtpd.
    pub(crate) postfix: Vec<String>,
    /// Why it is not played against Postfix, if it is not.
    pub(crate) not_postfix: Option<String>,
    pub(crate) steps: Vec<Numbered<Step>>,
    pub(crate) checks: Vec<Numbered<Check>>,
}

/// Something with the number of its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered<T> {
    pub(crate) line: usize,
    pub(crate) what: T,
}

/// What happens on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client writes these octets at once.
    Send(Vec<u8>),
    /// So many replies that begin with this.
    Replies(usize, String),
    /// The server closes, and has said nothing more.
    Closed,
    /// The client goes without a word.
    Drop,
    /// The server says nothing here.
    Nothing,
}

/// What must have arrived upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// This many messages.
    Messages(usize),
    /// One of them with this sender and these recipients, in any order.
    Envelope(String, Vec<String>),
    /// One of them has these octets; its lines end in `\n`.
    Contains(Vec<u8>),
    /// None of them has.
    Lacks(Vec<u8>),
    /// One of them was announced to Exchange with this parameter of MAIL. No other server is asked.
    Announced(String),
}

/// A line that is none of the format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: usize,
    pub(crate) why: &'static str,
}

/// A line of a transcript by itself.
enum Line {
    Listener(String),
    Postfix(String),
    NotPostfix(String),
    Step(Step),
    Check(Check),
    /// The client leaves Postfix here.
    Stop,
}

impl Script {
    /// Reads a whole transcript.
    pub(crate) fn parse(text: &str, server: Server) -> Result<Self, Mistake> {
        let mut reader = Reader { script: Self::default(), server, above: Above::Nothing };
        for (at, line) in text.lines().enumerate() {
            if !line.is_empty() && !line.starts_with('#') {
                reader.add(at + 1, line).map_err(|why| Mistake { line: at + 1, why })?;
            }
        }
        let (lines, mut script) = (text.lines().count(), reader.script);
        let mistake = |why| Err(Mistake { line: lines, why });
        if !text.starts_with("# ") {
            return Err(Mistake {
                line: 1,
                why: "it begins with a comment that says who talks so, and why it matters",
            });
        }
        if !script.is_closed() {
            if server == Server::Relay {
                return mistake("a dialog ends in `S: closed` or `drop`");
            }
            script.steps.push(Numbered { line: lines, what: Step::Drop });
        }
        let counts = script.checks.iter().filter_map(|check| match check.what {
            Check::Messages(count) => Some(count),
            _ => None,
        });
        let counts: Vec<_> = counts.collect();
        let [count] = counts[..] else { return mistake("`messages:` says once how many arrive") };
        if server == Server::Postfix && count == 0 {
            // What the others took says nothing of what it refused.
            script.checks.retain(|check| matches!(check.what, Check::Messages(_) | Check::Lacks(_)));
        }
        Ok(script)
    }

    fn is_closed(&self) -> bool {
        self.steps.last().is_some_and(|step| matches!(step.what, Step::Closed | Step::Drop))
    }
}

/// A transcript that is being read.
struct Reader {
    script: Script,
    server: Server,
    above: Above,
}

/// What a `[postfix]` line would replace.
enum Above {
    Nothing,
    Answer,
    Check,
}

impl Reader {
    fn add(&mut self, number: usize, line: &str) -> Result<(), &'static str> {
        if line.ends_with([' ', '\t']) {
            return Err("blanks at the end of a line cannot be seen: write C! with \\x20");
        }
        let (line, replaces) = parse_line(line)?;
        if replaces {
            return self.replace(number, line);
        }
        let script = &mut self.script;
        self.above = Above::Nothing;
        match line {
            Line::Listener(setting) => script.listener.push(setting),
            Line::Postfix(setting) => script.postfix.push(setting),
            Line::NotPostfix(why) => script.not_postfix = Some(why),
            Line::Stop => return Err("`stop` is for another server: the dialog with the relay is played to its end"),
            Line::Step(_) if script.is_closed() && self.server == Server::Relay => {
                return Err("nothing follows `S: closed` and `drop`");
            }
            // Postfix closed by a line of its own: what follows is for the others.
            Line::Step(_) if script.is_closed() => {}
            Line::Step(what) => {
                if !matches!(what, Step::Send(_) | Step::Drop) {
                    self.above = Above::Answer;
                }
                script.steps.push(Numbered { line: number, what });
            }
            Line::Check(what) => {
                self.above = Above::Check;
                script.checks.push(Numbered { line: number, what });
            }
        }
        Ok(())
    }

    /// A line that holds for Postfix in place of the one above.
    fn replace(&mut self, number: usize, line: Line) -> Result<(), &'static str> {
        const NOTHING: &str = "there is no line of this kind above";
        let (is_postfix, script) = (self.server == Server::Postfix, &mut self.script);
        match (line, &self.above) {
            (Line::Step(Step::Send(_) | Step::Drop), _) => return Err("the client says the same to every server"),
            (Line::Step(what), Above::Answer) => {
                let above = script.steps.last_mut().ok_or(NOTHING)?;
                if is_postfix {
                    *above = Numbered { line: number, what };
                }
            }
            // It replaces a line that Postfix never reaches.
            (Line::Step(_), Above::Nothing) if is_postfix && script.is_closed() => {}
            (Line::Check(what), Above::Check) => {
                let above = script.checks.last_mut().ok_or(NOTHING)?;
                if is_postfix {
                    *above = Numbered { line: number, what };
                }
            }
            (Line::Step(_) | Line::Check(_), _) => return Err(NOTHING),
            (Line::Stop, _) => {
                if is_postfix && !script.is_closed() {
                    script.steps.push(Numbered { line: number, what: Step::Drop });
                }
            }
            _ => return Err("a setting holds for one server anyway"),
        }
        self.above = Above::Nothing;
        Ok(())
    }
}

/// One line, and whether it replaces the one above for Postfix.
fn parse_line(line: &str) -> Result<(Line, bool), &'static str> {
    const UNKNOWN: &str = "no line begins so";
    if line == "drop" {
        return Ok((Line::Step(Step::Drop), false));
    }
    if line == "stop[postfix]" {
        return Ok((Line::Stop, true));
    }
    let end = line.find(|c: char| !c.is_ascii_alphabetic()).ok_or(UNKNOWN)?;
    let (name, rest) = line.split_at(end);
    let (rest, replaces) = rest.strip_prefix("[postfix]").map_or((rest, false), |rest| (rest, true));
    let (kind, rest) = (rest.chars().next().unwrap_or(' '), rest.get(1..).unwrap_or_default());
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let parsed = match (name, kind) {
        ("C", ':') => Line::Step(Step::Send([rest.as_bytes(), b"\r\n"].concat())),
        ("C", '!') => Line::Step(Step::Send(unescaped(rest)?)),
        ("C", '*') => {
            let (count, rest) = counted(rest)?;
            Line::Step(Step::Send(unescaped(rest)?.repeat(count)))
        }
        ("S", ':') => Line::Step(answer(1, rest)?),
        ("S", '*') => {
            let (count, rest) = counted(rest)?;
            Line::Step(answer(count, rest)?)
        }
        ("listener", ':') => Line::Listener(rest.to_owned()),
        ("postfix", ':') => Line::Postfix(rest.to_owned()),
        ("not", ':') => Line::NotPostfix(why_not_postfix(rest)?),
        ("messages", ':') => Line::Check(Check::Messages(rest.parse().map_err(|_| "a number of messages")?)),
        ("envelope", ':') => Line::Check(envelope(rest)?),
        ("contains", ':') => Line::Check(Check::Contains(unescaped(rest)?)),
        ("announced", ':') => Line::Check(Check::Announced(rest.to_owned())),
        ("lacks", ':') => Line::Check(Check::Lacks(unescaped(rest)?)),
        _ => return Err(UNKNOWN),
    };
    Ok((parsed, replaces))
}

fn counted(text: &str) -> Result<(usize, &str), &'static str> {
    let (count, rest) = text.split_once(' ').ok_or("a count, a blank, and what is counted")?;
    Ok((count.parse().map_err(|_| "a count, a blank, and what is counted")?, rest))
}

fn answer(count: usize, text: &str) -> Result<Step, &'static str> {
    match text {
        "closed" => Ok(Step::Closed),
        "-" => Ok(Step::Nothing),
        text if text.len() >= 3 && text.as_bytes()[..3].iter().all(u8::is_ascii_digit) => {
            Ok(Step::Replies(count, text.to_owned()))
        }
        _ => Err("a reply begins with its code; `closed` is the end and `-` nothing"),
    }
}

fn why_not_postfix(text: &str) -> Result<String, &'static str> {
    let why = text.strip_prefix("postfix, ").filter(|why| !why.is_empty());
    why.map(str::to_owned).ok_or("`not: postfix, ` and why")
}

/// `<from> -> <one>, <other>`
fn envelope(text: &str) -> Result<Check, &'static str> {
    const FORM: &str = "an envelope is `<sender> -> <recipient>, <recipient>`";
    let inner = |text: &str| text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).map(str::to_owned);
    let (from, to) = text.split_once(" -> ").ok_or(FORM)?;
    let to = inner(to).ok_or(FORM)?;
    Ok(Check::Envelope(inner(from).ok_or(FORM)?, to.split(">, <").map(str::to_owned).collect()))
}

/// `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` are the octets that they are elsewhere.
fn unescaped(text: &str) -> Result<Vec<u8>, &'static str> {
    const UNKNOWN: &str = "an escape is \\r \\n \\t \\0 \\\\ or \\xNN";
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(octet) = rest.next() {
        if *octet != b'\\' {
            octets.push(*octet);
            continue;
        }
        octets.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => hex(rest.next())? << 4 | hex(rest.next())?,
            _ => return Err(UNKNOWN),
        });
    }
    Ok(octets)
}

fn hex(digit: Option<&u8>) -> Result<u8, &'static str> {
    let digit = digit.and_then(|digit| char::from(*digit).to_digit(16)).ok_or("\\x has two digits")?;
    Ok(u8::try_from(digit).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "# A device.\n# It does this.\nlistener: max_recipients = 3\npostfix: smtpd_recipient_limit=3\n\n\
        S: 220\nC: EHLO x\nS: 250\nC! QUIT\\x20\\r\nC! \\n\nS: 221 2.0.0\nS[postfix]: 221\nS: closed\n\n\
        messages: 1\nenvelope: <a@b> -> <c@d>, <\"e, f\"@g>\ncontains: x\\ty\ncontains[postfix]: x y\nlacks: z\n";

    /// A dialog with these lines in its middle.
    fn with(lines: &str) -> String {
        format!("# x\nS: 220\n{lines}\ndrop\nmessages: 0\n")
    }

    fn steps(text: &str, server: Server) -> Vec<Step> {
        Script::parse(text, server).unwrap().steps.into_iter().map(|step| step.what).collect()
    }

    fn replies(start: &str) -> Step {
        Step::Replies(1, start.into())
    }

    #[test]
    fn a_whole_transcript_for_each_server() {
        let relay = Script::parse(WHOLE, Server::Relay).unwrap();
        assert_eq!(relay.listener, ["max_recipients = 3"]);
        assert_eq!(relay.postfix, ["smtpd_recipient_limit=3"]);
        let lines: Vec<_> = relay.steps.iter().map(|step| step.line).collect();
        assert_eq!(lines, [6, 7, 8, 9, 10, 11, 13]);
        let send = |octets: &[u8]| Step::Send(octets.to_vec());
        let both = [replies("220"), send(b"EHLO x\r\n"), replies("250"), send(b"QUIT \r"), send(b"\n")];
        let steps = |end: &str| [&both[..], &[replies(end), Step::Closed]].concat();
        let found = |script: &Script| script.steps.iter().map(|step| step.what.clone()).collect::<Vec<_>>();
        assert_eq!(found(&relay), steps("221 2.0.0"));
        let postfix = Script::parse(WHOLE, Server::Postfix).unwrap();
        assert_eq!(found(&postfix), steps("221"));
        let checks = |script: Script| script.checks.into_iter().map(|check| check.what).collect::<Vec<_>>();
        let expected = |contained: &[u8]| {
            [
                Check::Messages(1),
                Check::Envelope("a@b".into(), vec!["c@d".into(), "\"e, f\"@g".into()]),
                Check::Contains(contained.to_vec()),
                Check::Lacks(b"z".to_vec()),
            ]
        };
        assert_eq!(checks(relay), expected(b"x\ty"));
        assert_eq!(checks(postfix), expected(b"x y"));
    }

    #[test]
    fn lines() {
        for (line, step) in [
            ("C:", Step::Send(b"\r\n".to_vec())),
            ("C: .", Step::Send(b".\r\n".to_vec())),
            ("C:   a\\r", Step::Send(b"  a\\r\r\n".to_vec())),
            ("C: gr\u{fc}n", Step::Send("gr\u{fc}n\r\n".into())),
            ("C!", Step::Send(Vec::new())),
            ("C! \\0\\t\\\\\\xfF", Step::Send(b"\0\t\\\xff".to_vec())),
            ("C* 3 ab\\n", Step::Send(b"ab\nab\nab\n".to_vec())),
            ("S: 250 2.1.0 OK", replies("250 2.1.0 OK")),
            ("S* 7 450", Step::Replies(7, "450".into())),
            ("S: -", Step::Nothing),
        ] {
            assert_eq!(steps(&with(line), Server::Relay)[1], step, "{line}");
        }
    }

    #[test]
    fn postfix_may_say_another_thing_nothing_or_the_last_word() {
        for (lines, relay, postfix) in [
            ("S: 501\nS[postfix]: 250 2", &[replies("501")][..], &[replies("250 2")][..]),
            ("S: 501\nS[postfix]* 2 250", &[replies("501")], &[Step::Replies(2, "250".into())]),
            ("S: 501\nS[postfix]: -", &[replies("501")], &[Step::Nothing]),
            ("S: -\n# It knows this.\nS[postfix]: 250", &[Step::Nothing], &[replies("250")]),
        ] {
            let around = |steps: &[Step]| [&[replies("220")], steps, &[Step::Drop]].concat();
            assert_eq!(steps(&with(lines), Server::Relay), around(relay), "{lines}");
            assert_eq!(steps(&with(lines), Server::Postfix), around(postfix), "{lines}");
        }
        let text = with("S: 501\nS[postfix]: closed\nC: QUIT\nS: 221\nS[postfix]: 222");
        assert_eq!(steps(&text, Server::Postfix), [replies("220"), Step::Closed]);
        let text = with("S: 501\nS[postfix]: 250\nstop[postfix]\nC: QUIT\nS: 221\nS[postfix]: 222");
        assert_eq!(steps(&text, Server::Postfix), [replies("220"), replies("250"), Step::Drop]);
        let text = "# x\nS: 501\nS: closed\nS[postfix]: 250\nmessages: 0\n";
        assert_eq!(steps(text, Server::Postfix), [replies("501"), replies("250"), Step::Drop]);
    }

    #[test]
    fn what_postfix_refused_is_not_looked_into() {
        let text = "# x\ndrop\nmessages: 1\nmessages[postfix]: 0\ncontains: x\nlacks: y\nannounced: BODY=8BITMIME\n";
        let checks = |server| Script::parse(text, server).unwrap().checks.into_iter().map(|check| check.what);
        assert_eq!(checks(Server::Postfix).collect::<Vec<_>>(), [Check::Messages(0), Check::Lacks(b"y".to_vec())]);
        assert_eq!(checks(Server::Relay).next_back(), Some(Check::Announced("BODY=8BITMIME".into())));
    }

    #[test]
    fn a_transcript_may_stay_between_us() {
        let script = Script::parse(&with("not: postfix, it knows no such thing"), Server::Relay).unwrap();
        assert_eq!(script.not_postfix.as_deref(), Some("it knows no such thing"));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (lines, number) in [
            ("X: y", 3),
            ("drop it", 3),
            ("C", 3),
            ("C? x", 3),
            ("C: x ", 3),
            ("C: x\n\nC! \\q", 5),
            ("C! \\x4", 3),
            ("C! \\", 3),
            ("C* x", 3),
            ("C* many x", 3),
            ("S: OK", 3),
            ("S: 25", 3),
            ("S: closed\nC: x", 4),
            ("drop\nS: 250", 4),
            ("messages: some", 3),
            ("messages: 1", 5),
            ("envelope: a -> b", 3),
            ("envelope: <a>", 3),
            ("not: postfix", 3),
            ("not: exim, why", 3),
            ("stop", 3),
            ("contains: \\y", 3),
        ] {
            let mistake = Script::parse(&with(lines), Server::Relay).unwrap_err();
            assert_eq!(mistake.line, number, "{lines:?}: {}", mistake.why);
        }
        for lines in [
            "C: x\nC[postfix]: y",
            "C: x\nS[postfix]: 250",
            "S: 250\nS[postfix]: 1xx",
            "S: 250\nS[postfix]: 251\nS[postfix]: 252",
            "S: 250\nlacks[postfix]: y",
            "listener: x\nlistener[postfix]: y",
        ] {
            for server in [Server::Relay, Server::Postfix] {
                assert!(Script::parse(&with(lines), server).is_err(), "{lines:?}");
            }
        }
        for text in ["S: 220\ndrop\nmessages: 0\n", "# x\nS: 220\nmessages: 0\n", "# x\nS: 220\ndrop\n"] {
            assert!(Script::parse(text, Server::Relay).is_err(), "{text:?}");
        }
    }
}
