//! The schema: what a section, a key and a value of the configuration look like, as data. Reading, printing, the
//! reference page, the example and the tests all walk this one description; nothing else knows a key's name.

use serde_json::Value as Json;

/// A key of a section.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it is for, as the reference shows it.
    pub(crate) about: &'static str,
    /// Whether this release has what it asks for; if not, it is refused by name.
    pub(crate) built: bool,
    pub(crate) fallback: Fallback,
    pub(crate) shape: fn() -> Shape,
    /// A right value, for tests.
    #[cfg(test)]
    pub(crate) sample: fn(&mut super::sample::Chance) -> Json,
}

/// What is in effect when a key is left out.
pub(crate) enum Fallback {
    /// It may not be left out.
    Required,
    /// Nothing.
    Absent,
    /// This value.
    Constant(fn() -> Json),
    /// Something that depends on the rest; in words.
    Derived(&'static str),
}

/// What may stand at a key.
pub(crate) enum Shape {
    /// One value.
    Scalar(Allowed),
    /// A list of such values.
    List(Allowed),
    /// A table from one such value to another.
    Map(Allowed, Allowed),
    /// Where a secret is: `{ file | env | systemd_credential = "..." }`.
    Secret,
    /// A table of its own.
    Table(&'static [Key]),
}

/// Which values a scalar may have.
pub(crate) struct Allowed {
    /// In words, to follow "must be" or "is not".
    pub(crate) text: String,
    /// The words that may be chosen from, if it is a choice.
    pub(crate) words: &'static [Word],
}

/// A word of a choice.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) built: bool,
}

/// A table at the top level.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) built: bool,
    pub(crate) form: Form,
    pub(crate) keys: &'static [Key],
}

/// How a section is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `[name]`, once.
    One,
    /// `[name.NAME]`, any number.
    Named,
    /// `[[name]]`, in an order that matters.
    Ordered,
}

impl Section {
    /// As its header is written.
    pub(crate) fn header(&self) -> String {
        match self.form {
            Form::One => format!("[{}]", self.name),
            Form::Named => format!("[{}.NAME]", self.name),
            Form::Ordered => format!("[[{}]]", self.name),
        }
    }
}

/// The one in `names` that was probably meant.
pub(crate) fn nearest<'a>(names: impl Iterator<Item = &'a str>, written: &str) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(name, written), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3 + 1)
        .map(|(_, name)| name)
}

/// Whether `path` is where a secret reference stands, so that a layer above replaces it whole.
pub(crate) fn is_secret_reference(sections: &[Section], path: &str) -> bool {
    let mut names = path.split('.');
    let section = names.next().and_then(|name| sections.iter().find(|section| section.name == name));
    let Some(section) = section else { return false };
    if section.form != Form::One {
        names.next();
    }
    let mut keys = section.keys;
    loop {
        let Some(key) = names.next().and_then(|name| keys.iter().find(|key| key.name == name)) else { return false };
        match (key.shape)() {
            Shape::Secret => return names.next().is_none(),
            Shape::Table(inner) => keys = inner,
            _ => return false,
        }
    }
}

/// Declares a section: its type, its keys with their documentation, defaults and whether they are built, and from these
/// how it is read and printed.
///
/// `built` or `later`, the name, then `: Type` (required), `: Type = default`, `: Type => derived, "in words"` (which
/// may use the keys above it), or `? Type` (may be absent).
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $visibility:vis struct $Section:ident {
            $( $(#[doc = $doc:literal])+ $state:ident $key:ident $mode:tt $Type:ty $(= $default:expr)? $(=> $derived:expr, $words:literal)? ; )+
        }
    ) => {
        $(#[doc = $about])+
        #[allow(clippy::struct_field_names, reason = "the configuration's own names")]
        #[derive(Clone, Debug)]
        $visibility struct $Section {
            $( $(#[doc = $doc])+ pub $key: $crate::config::schema::field!(type $mode $Type), )+
        }

        impl $Section {
            /// What it is for.
            #[allow(dead_code, reason = "tables within a section are told by their key")]
            pub(crate) const ABOUT: &'static str = concat!($($about, "\n"),+);
            /// Its keys, in the order of the reference.
            pub(crate) const KEYS: &'static [$crate::config::schema::Key] = &[
                $( $crate::config::schema::Key {
                    name: stringify!($key),
                    about: concat!($($doc, "\n"),+),
                    built: $crate::config::schema::field!(built $state),
                    fallback: $crate::config::schema::field!(fallback $mode $Type $(, $default)? $(=> $words)?),
                    shape: <$Type as $crate::config::value::Value>::shape,
                    #[cfg(test)]
                    sample: <$Type as $crate::config::value::Value>::sample,
                }, )+
            ];

            /// Reads it. None, with mistakes recorded, when something required is missing or wrong.
            pub(crate) fn read(mut table: $crate::config::reading::Table<'_>) -> Option<Self> {
                let mut keys = Self::KEYS.iter();
                $( let $key = keys.next().and_then(|key| table.read::<$Type>(key)); )+
                table.finish(Self::KEYS);
                $( $crate::config::schema::field!(finish $mode $key $(, $default)? $(, $derived)?); )+
                Some(Self { $($key),+ })
            }

            /// What is in effect, key by key; nothing for what is absent.
            pub(crate) fn entries(&self) -> Vec<(&'static $crate::config::schema::Key, Option<serde_json::Value>)> {
                let values = [ $( $crate::config::schema::field!(json $mode self.$key), )+ ];
                Self::KEYS.iter().zip(values).collect()
            }
        }
    };
}

/// What [`section!`] makes of one key.
macro_rules! field {
    (type : $Type:ty) => { $Type };
    (type ? $Type:ty) => { Option<$Type> };
    (built built) => { true };
    (built later) => { false };
    (fallback : $Type:ty) => { $crate::config::schema::Fallback::Required };
    (fallback : $Type:ty, $default:expr) => {
        $crate::config::schema::Fallback::Constant(|| {
            let default: $Type = $default;
            $crate::config::value::Value::json(&default)
        })
    };
    (fallback : $Type:ty => $words:literal) => { $crate::config::schema::Fallback::Derived($words) };
    (fallback ? $Type:ty) => { $crate::config::schema::Fallback::Absent };
    (fallback ? $Type:ty => $words:literal) => { $crate::config::schema::Fallback::Derived($words) };
    (finish : $key:ident) => { let $key = $key?; };
    (finish : $key:ident, $default:expr) => { let $key = $key.unwrap_or_else(|| $default); };
    (finish ? $key:ident) => {};
    (finish ? $key:ident, $derived:expr) => { let $key = $key.or_else(|| $derived); };
    (json : $value:expr) => { Some($crate::config::value::Value::json(&$value)) };
    (json ? $value:expr) => { $value.as_ref().map($crate::config::value::Value::json) };
}

/// Lets a section stand as a table within another.
macro_rules! inner_table {
    ($Section:ident) => {
        impl $crate::config::value::Value for $Section {
            fn shape() -> $crate::config::schema::Shape {
                $crate::config::schema::Shape::Table(Self::KEYS)
            }

            fn read(table: &mut $crate::config::reading::Table<'_>, key: &str) -> Option<Self> {
                let inner = Self::read(table.inner(key)?);
                if inner.is_none() {
                    table.mark_wrong(key);
                }
                inner
            }

            fn json(&self) -> serde_json::Value {
                let given = self.entries().into_iter().filter_map(|(key, value)| Some((key.name.to_owned(), value?)));
                serde_json::Value::Object(given.collect())
            }

            #[cfg(test)]
            fn sample(chance: &mut $crate::config::sample::Chance) -> serde_json::Value {
                chance.table(Self::KEYS)
            }
        }
    };
}

pub(crate) use {field, inner_table, section};

#[cfg(test)]
mod tests {
    use super::super::settings::SECTIONS;
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = || ["client_id", "client_secret", "address"].into_iter();
        assert_eq!(nearest(names(), "clientid"), Some("client_id"));
        assert_eq!(nearest(names(), "client_secrte"), Some("client_secret"));
        assert_eq!(nearest(names(), "adress"), Some("address"));
        assert_eq!(nearest(names(), "colour"), None);
    }

    #[test]
    fn secret_references_are_known_by_their_path() {
        for path in [
            "tenant.contoso.client_secret",
            "tenant.contoso.federated_token",
            "tenant.contoso.certificate_credential.key",
            "vault.key",
        ] {
            assert!(is_secret_reference(SECTIONS, path), "{path}");
        }
        for path in [
            "tenant.contoso",
            "tenant.contoso.client_secret.file",
            "tenant.contoso.certificate_credential.certificate",
            "mailbox.contoso.client_secret",
            "vault",
            "",
        ] {
            assert!(!is_secret_reference(SECTIONS, path), "{path}");
        }
    }
}
