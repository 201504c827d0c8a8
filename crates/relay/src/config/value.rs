//! Values of the configuration: what can be read at a key, from the file or from the environment's text, and written back.
//! The general shapes are here (flags, numbers, sizes, periods, choices, lists); addresses, networks and the like have files
//! of their own.

use std::fmt;
use std::time::Duration;

use config::{Value as Raw, ValueKind};
use serde_json::Value as Json;

use super::reading::Table;
#[cfg(test)]
use super::sample::Chance;
use super::schema::{Allowed, Shape, Word, nearest};

/// What can stand at a key.
pub(crate) trait Value: Sized {
    /// How it is written.
    fn shape() -> Shape;

    /// Reads what stands at `key`; None if it is wrong, which is then told.
    fn read(table: &mut Table<'_>, key: &str) -> Option<Self>;

    /// As it may be written; TOML's form follows from it.
    fn json(&self) -> Json;

    /// Why this release cannot do what it asks for.
    fn later(&self) -> Option<String> {
        None
    }

    /// A right value, for tests.
    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json;
}

/// One value that has a text; what a list and a map hold.
pub(crate) trait Scalar: Sized {
    /// Whether the file has it in quotes.
    const QUOTED: bool = true;

    /// Which values are right, to follow "must be" and "is not".
    fn allowed() -> String;

    /// From its text.
    fn parse(text: &str) -> Result<Self, Wrong>;

    /// As it may be written.
    fn json(&self) -> Json;

    /// The words of a choice.
    fn words() -> &'static [Word] {
        &[]
    }

    /// Why this release cannot do what it asks for.
    fn later(&self) -> Option<String> {
        None
    }

    /// A right value, for tests.
    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json;
}

/// Why a text is no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is none of those that are allowed.
    NotAllowed,
    /// The same, and it is not repeated, since it may be a secret.
    Unrepeatable,
    /// In words that say it better.
    Because(String),
}

impl Wrong {
    pub(crate) fn tell<T: Scalar>(self, text: &str) -> String {
        let allowed = T::allowed();
        match self {
            Self::NotAllowed if !T::QUOTED && !text.is_empty() => format!("{text} is not {allowed}"),
            Self::NotAllowed => match nearest(T::words().iter().map(|word| word.name), text) {
                Some(meant) => format!("{text:?} is not {allowed}; did you mean {meant:?}?"),
                None => format!("{text:?} is not {allowed}"),
            },
            Self::Unrepeatable => format!("this is not {allowed}"),
            Self::Because(why) => why,
        }
    }
}

/// What is allowed for `T`.
pub(crate) fn allowed<T: Scalar>() -> Allowed {
    Allowed { text: T::allowed(), words: T::words() }
}

/// One value; the environment has text for every type.
pub(crate) fn scalar<T: Scalar>(raw: &Raw, is_from_environment: bool) -> Result<T, String> {
    let parse = |text: &str| T::parse(text).map_err(|wrong| wrong.tell::<T>(text));
    match &raw.kind {
        ValueKind::String(text) if T::QUOTED => parse(text),
        ValueKind::String(text) if is_from_environment => parse(text.trim()),
        ValueKind::Boolean(truth) if !T::QUOTED => parse(&truth.to_string()),
        ValueKind::I64(number) if !T::QUOTED => parse(&number.to_string()),
        ValueKind::I128(number) if !T::QUOTED => parse(&number.to_string()),
        ValueKind::String(_) => Err(format!("must be {}, without quotes", T::allowed())),
        other => {
            let quotes = if T::QUOTED { ", in quotes" } else { "" };
            Err(format!("must be {}{quotes}, not {}", T::allowed(), kind_name(other)))
        }
    }
}

pub(crate) fn kind_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a fraction",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
        ValueKind::String(_) => "a text",
        ValueKind::Nil => "nothing",
    }
}

impl<T: Scalar> Value for T {
    fn shape() -> Shape {
        Shape::Scalar(allowed::<T>())
    }

    fn read(table: &mut Table<'_>, key: &str) -> Option<Self> {
        let found = table.take(key)?;
        scalar(&found.raw, found.is_from_environment()).map_err(|text| table.wrong(&found, text)).ok()
    }

    fn json(&self) -> Json {
        Scalar::json(self)
    }

    fn later(&self) -> Option<String> {
        Scalar::later(self)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        <T as Scalar>::sample(chance)
    }
}

/// A list. The environment has it comma-separated.
impl<T: Scalar> Value for Vec<T> {
    fn shape() -> Shape {
        Shape::List(allowed::<T>())
    }

    fn read(table: &mut Table<'_>, key: &str) -> Option<Self> {
        let found = table.take(key)?;
        let raws: Vec<Raw> = match &found.raw.kind {
            ValueKind::Array(items) => items.clone(),
            ValueKind::String(text) if found.is_from_environment() => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Raw::from).collect()
            }
            other => {
                table.wrong(&found, format!("must be a list, each {}, not {}", T::allowed(), kind_name(other)));
                return None;
            }
        };
        let mut items = Vec::new();
        let mut right = true;
        for raw in raws {
            match scalar(&raw, found.is_from_environment()) {
                Ok(item) => items.push(item),
                Err(text) => {
                    table.wrong_item(&found, &raw, text);
                    right = false;
                }
            }
        }
        right.then_some(items)
    }

    fn json(&self) -> Json {
        self.iter().map(Scalar::json).collect()
    }

    fn later(&self) -> Option<String> {
        self.iter().find_map(Scalar::later)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        (0..=chance.below(2)).map(|_| T::sample(chance)).collect()
    }
}

impl Scalar for bool {
    const QUOTED: bool = false;

    fn allowed() -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::Bool(*self)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::Bool(chance.below(2) == 0)
    }
}

/// A whole number from `LOW` to `HIGH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const LOW: u64, const HIGH: u64>(u64);

impl<const LOW: u64, const HIGH: u64> Count<LOW, HIGH> {
    /// Panics out of bounds: for constants only.
    pub(crate) const fn new(number: u64) -> Self {
        assert!(LOW <= number && number <= HIGH, "a default lies within its bounds");
        Self(number)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number as a port, which it is if `HIGH` is one.
    pub fn port(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    /// The number, for what counts in memory.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const LOW: u64, const HIGH: u64> Scalar for Count<LOW, HIGH> {
    const QUOTED: bool = false;

    fn allowed() -> String {
        format!("a whole number from {LOW} to {HIGH}")
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().ok().filter(|number| (LOW..=HIGH).contains(number)).map(Self).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::from(self.0)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::from(chance.between(LOW, HIGH))
    }
}

/// A size from `LOW` to `HIGH` octets: `35 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const LOW: u64, const HIGH: u64>(u64);

impl<const LOW: u64, const HIGH: u64> Size<LOW, HIGH> {
    /// Panics out of bounds: for constants only.
    pub(crate) const fn new(octets: u64) -> Self {
        assert!(LOW <= octets && octets <= HIGH, "a default lies within its bounds");
        Self(octets)
    }

    /// In octets.
    pub fn octets(self) -> u64 {
        self.0
    }
}

/// The units of sizes, largest first.
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl<const LOW: u64, const HIGH: u64> Scalar for Size<LOW, HIGH> {
    fn allowed() -> String {
        let bounds = format!("from {} to {}", quantity(LOW, &SIZES, " "), quantity(HIGH, &SIZES, " "));
        format!("a size such as \"35 MiB\" (B, KiB, MiB, GiB, TiB) {bounds}")
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        parse_quantity(text, &SIZES).filter(|octets| (LOW..=HIGH).contains(octets)).map(Self).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::String(quantity(self.0, &SIZES, " "))
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Scalar::json(&Self(chance.between(LOW, HIGH)))
    }
}

/// A time from `LOW` to `HIGH` seconds: `10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period<const LOW: u64, const HIGH: u64>(u64);

impl<const LOW: u64, const HIGH: u64> Period<LOW, HIGH> {
    /// Panics out of bounds: for constants only.
    pub(crate) const fn new(seconds: u64) -> Self {
        assert!(LOW <= seconds && seconds <= HIGH, "a default lies within its bounds");
        Self(seconds)
    }

    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// The units of periods, largest first.
const PERIODS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl<const LOW: u64, const HIGH: u64> Scalar for Period<LOW, HIGH> {
    fn allowed() -> String {
        let bounds = format!("from {} to {}", quantity(LOW, &PERIODS, ""), quantity(HIGH, &PERIODS, ""));
        format!("a duration such as \"5s\", \"10m\", \"2h\" or \"5d\" {bounds}")
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let seconds = parse_quantity(text, &PERIODS).filter(|seconds| (LOW..=HIGH).contains(seconds));
        seconds.map(Self).ok_or(Wrong::NotAllowed)
    }

    fn json(&self) -> Json {
        Json::String(quantity(self.0, &PERIODS, ""))
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Scalar::json(&Self(chance.between(LOW, HIGH)))
    }
}

/// A whole number and a unit.
fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// As it is written: in the largest unit that leaves a whole number.
fn quantity(number: u64, units: &[(&str, u64)], between: &str) -> String {
    let fits = |(_, factor): &&(&str, u64)| number >= *factor && number.is_multiple_of(*factor);
    let (name, factor) = units.iter().find(fits).or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{between}{name}", number / factor)
}

/// Declares a choice of a few words: the enum, its words with their documentation, and which of them are built.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $visibility:vis enum $Choice:ident {
            $( $(#[doc = $doc:literal])+ $state:ident $Variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $Choice {
            $( $(#[doc = $doc])+ $Variant, )+
        }

        impl $Choice {
            const WORDS: &'static [$crate::config::schema::Word] = &[
                $( $crate::config::schema::Word {
                    name: $word,
                    about: concat!($($doc, "\n"),+),
                    built: $crate::config::schema::field!(built $state),
                }, )+
            ];

            fn word(self) -> &'static $crate::config::schema::Word {
                &Self::WORDS[self as usize]
            }
        }

        impl $crate::config::value::Scalar for $Choice {
            fn allowed() -> String {
                $crate::config::value::one_of(Self::WORDS.iter())
            }

            fn parse(text: &str) -> Result<Self, $crate::config::value::Wrong> {
                match text {
                    $( $word => Ok(Self::$Variant), )+
                    _ => Err($crate::config::value::Wrong::NotAllowed),
                }
            }

            fn json(&self) -> serde_json::Value {
                serde_json::Value::from(self.word().name)
            }

            fn words() -> &'static [$crate::config::schema::Word] {
                Self::WORDS
            }

            fn later(&self) -> Option<String> {
                let built = || $crate::config::value::one_of(Self::WORDS.iter().filter(|word| word.built));
                let word = self.word();
                (!word.built).then(|| format!("{:?} is not built yet in this release; it must be {}", word.name, built()))
            }

            #[cfg(test)]
            fn sample(chance: &mut $crate::config::sample::Chance) -> serde_json::Value {
                serde_json::Value::from(chance.one(Self::WORDS).name)
            }
        }
    };
}

pub(crate) use choice;

/// `"a"`, `"a" or "b"`, `one of "a", "b", "c"`.
pub(crate) fn one_of<'a>(words: impl Iterator<Item = &'a Word>) -> String {
    let words: Vec<_> = words.map(|word| format!("{:?}", word.name)).collect();
    match words.as_slice() {
        [one, other] => format!("{one} or {other}"),
        [one] => one.clone(),
        _ => format!("one of {}", words.join(", ")),
    }
}

/// A text as TOML writes it.
pub(crate) struct Toml<'a>(pub(crate) &'a Json);

impl fmt::Display for Toml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // JSON's escapes are TOML's; only DEL may stand bare there and not here.
            Json::String(_) => f.write_str(&self.0.to_string().replace('\x7f', "\\u007f")),
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| Toml(item).to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Json::Object(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| format!("{} = {}", TomlKey(key), Toml(value))).collect();
                if entries.is_empty() { f.write_str("{}") } else { write!(f, "{{ {} }}", entries.join(", ")) }
            }
            other => write!(f, "{other}"),
        }
    }
}

/// A key as TOML writes it: bare where it can be.
pub(crate) struct TomlKey<'a>(pub(crate) &'a str);

impl fmt::Display for TomlKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-';
        if !self.0.is_empty() && self.0.bytes().all(bare) {
            f.write_str(self.0)
        } else {
            Toml(&Json::from(self.0)).fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        type Any = Period<0, { u64::MAX }>;
        for (text, seconds, written) in
            [("0s", 0, "0s"), ("8s", 8, "8s"), ("600s", 600, "10m"), ("2h", 7200, "2h"), (" 1 m ", 60, "1m")]
        {
            assert_eq!(Any::parse(text).map(|period| period.0), Ok(seconds), "{text}");
            assert_eq!(Scalar::json(&Any::new(seconds)), written);
        }
        for text in ["", "5", "m", "-1s", "1.5h", "5 weeks", "99999999999999999999s", "9999999999999999999d"] {
            assert_eq!(Any::parse(text), Err(Wrong::NotAllowed), "{text}");
        }
        assert!(Period::<1, 10>::parse("0s").is_err() && Period::<1, 10>::parse("11s").is_err());
    }

    #[test]
    fn sizes_read_as_they_are_written() {
        type Any = Size<0, { u64::MAX }>;
        for (text, octets) in
            [("35 MiB", 36_700_160), ("1KiB", 1024), ("20 GiB", 21_474_836_480), ("7 B", 7), ("0 B", 0)]
        {
            let size = Any::parse(text).unwrap();
            assert_eq!(size.octets(), octets, "{text}");
            assert_eq!(Any::parse(Scalar::json(&size).as_str().unwrap()), Ok(size));
        }
        for text in ["", "35", "35 MB", "35 mib", "-1 B", "99999999 TiB"] {
            assert_eq!(Any::parse(text), Err(Wrong::NotAllowed), "{text}");
        }
        assert_eq!(Scalar::json(&Any::new(36_700_160)), "35 MiB");
    }

    #[test]
    fn numbers_have_bounds() {
        type Small = Count<1, 9>;
        assert_eq!(Small::parse("9"), Ok(Small::new(9)));
        for text in ["0", "10", "-1", "x", "", "1.0"] {
            assert_eq!(Small::parse(text), Err(Wrong::NotAllowed), "{text}");
        }
    }

    #[test]
    fn toml_is_written_as_it_can_be_read() {
        let json = serde_json::json!({ "a b": ["x\"y\\\n\u{7f}"], "c": 1, "d": true, "e": {} });
        let written = Toml(&json).to_string();
        assert_eq!(written, "{ \"a b\" = [\"x\\\"y\\\\\\n\\u007f\"], c = 1, d = true, e = {} }");
    }
}
