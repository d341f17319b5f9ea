//! Every text that people read, by key, in `app/locales/<language>.json`. The page carries the active language only.
//!
//! A text's `{name}` places are filled from arguments. A key without a text shows as itself: a newer server's code is
//! better than nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    En,
    Ko,
}

impl Lang {
    pub const ALL: [Self; 2] = [Self::En, Self::Ko];

    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ko => "ko",
        }
    }

    /// The language's name for itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::Ko => "한국어",
        }
    }

    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lang| lang.code() == code)
    }
}

pub const LANG_COOKIE: &str = "kiops_lang";
/// The element whose text holds the active language's texts.
pub const TEXTS_ELEMENT: &str = "texts";

type Texts = BTreeMap<String, String>;

/// The text of a key, in the reader's language.
pub fn t(key: &str) -> String {
    find(key).map_or_else(|| key.to_owned(), str::to_owned)
}

/// Whether there is a text: codes may come from a newer server.
pub fn has(key: &str) -> bool {
    find(key).is_some()
}

pub fn tf(key: &str, args: &[(&str, &str)]) -> String {
    fill(find(key).unwrap_or(key), |name| args.iter().find(|(n, _)| *n == name).map(|(_, v)| Cow::Borrowed(*v)))
}

/// The same with arguments as problems and notes carry them.
pub fn tm(key: &str, args: &BTreeMap<String, String>) -> String {
    fill(find(key).unwrap_or(key), |name| argument(args, name))
}

/// A value as people read it: `free` is told of `free_bytes`.
fn argument<'a>(args: &'a BTreeMap<String, String>, name: &str) -> Option<Cow<'a, str>> {
    args.get(name).map(|value| value.as_str().into()).or_else(|| {
        let bytes = args.get(&format!("{name}_bytes"))?.parse().ok()?;
        Some(crate::ui::format::memory(bytes).into())
    })
}

/// Fills `{name}`; a place without an argument disappears.
fn fill<'a>(text: &str, arg: impl Fn(&str) -> Option<Cow<'a, str>>) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, after)) => {
                out.push_str(&arg(name).unwrap_or_default());
                rest = after;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(not(feature = "ssr"))]
fn find(key: &str) -> Option<&'static str> {
    use std::sync::OnceLock;
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    TEXTS
        .get_or_init(|| {
            leptos::prelude::document()
                .get_element_by_id(TEXTS_ELEMENT)
                .and_then(|element| element.text_content())
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default()
        })
        .get(key)
        .map(String::as_str)
}

#[cfg(feature = "ssr")]
fn find(key: &str) -> Option<&'static str> {
    find_in(current(), key)
}

#[cfg(feature = "ssr")]
pub use on_server::*;

#[cfg(feature = "ssr")]
mod on_server {
    use super::{LANG_COOKIE, Lang, Texts, argument, fill};
    use leptos::prelude::use_context;
    use std::collections::BTreeMap;
    use std::sync::LazyLock;

    const EN: &str = include_str!("../../locales/en.json");
    const KO: &str = include_str!("../../locales/ko.json");

    fn texts(lang: Lang) -> &'static Texts {
        // A file that cannot be read fails the tests, not the program.
        static ENGLISH: LazyLock<Texts> = LazyLock::new(|| serde_json::from_str(EN).unwrap_or_default());
        static KOREAN: LazyLock<Texts> = LazyLock::new(|| serde_json::from_str(KO).unwrap_or_default());
        match lang {
            Lang::En => &ENGLISH,
            Lang::Ko => &KOREAN,
        }
    }

    pub(super) fn find_in(lang: Lang, key: &str) -> Option<&'static str> {
        texts(lang).get(key).map(String::as_str)
    }

    /// A sentence for whoever is not in a page: the JSON API, a mail.
    pub fn message(lang: Lang, key: &str, args: &BTreeMap<String, String>) -> String {
        fill(find_in(lang, key).unwrap_or(key), |name| argument(args, name))
    }

    /// The language of an `Accept-Language` header: the first by quality that there is.
    pub fn pick(accept_language: &str) -> Lang {
        let mut best = (Lang::default(), 0.0f32);
        for part in accept_language.split(',') {
            let mut pieces = part.split(';');
            let tag = pieces.next().unwrap_or_default().trim();
            let quality = pieces
                .find_map(|p| p.trim().strip_prefix("q="))
                .map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or_default());
            let primary = tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
            if let Some(lang) = Lang::parse(&primary)
                && quality > best.1
            {
                best = (lang, quality);
            }
        }
        best.0
    }

    /// The reader's language: chosen before, else what the browser prefers.
    pub fn current() -> Lang {
        use_context::<Lang>().unwrap_or_else(|| {
            crate::call::cookie(LANG_COOKIE)
                .and_then(|code| Lang::parse(&code))
                .unwrap_or_else(|| pick(&crate::call::accept_language()))
        })
    }

    /// The active language's texts for the page's head, so that the page's program has them at once. Nothing in it ends
    /// the element it stands in.
    pub fn texts_script(lang: Lang) -> String {
        serde_json::to_string(texts(lang)).unwrap_or_default().replace("</", "<\\/")
    }
}

#[cfg(all(test, feature = "ssr"))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn read(lang: Lang) -> Texts {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("locales/{}.json", lang.code()));
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn sources(folder: &Path, out: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    fn places(text: &str) -> BTreeSet<String> {
        text.split('{').skip(1).filter_map(|p| p.split_once('}')).map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn languages_have_the_same_keys_and_places() {
        let (en, ko) = (read(Lang::En), read(Lang::Ko));
        let keys = |texts: &Texts| texts.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(
            keys(&en).symmetric_difference(&keys(&ko)).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "keys in one language only"
        );
        for (key, text) in &en {
            assert!(!text.trim().is_empty(), "{key} is empty");
            assert_eq!(places(text), places(&ko[key]), "places of {key}");
        }
    }

    #[test]
    fn every_key_in_the_code_has_a_text() {
        let en = read(Lang::En);
        let mut code = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        let mut missing = BTreeSet::new();
        for call in [" t(\"", "(t(\"", "!t(\"", "{t(\"", "tf(\"", "tm(\"", "has(\"", "|t(\""] {
            for rest in code.split(call).skip(1) {
                let key = rest.split('"').next().unwrap_or_default();
                // Keys are dotted words; `failure.{}.title` and the like are looked up whole below.
                if key.contains('.') && !key.contains('{') && !en.contains_key(key) {
                    missing.insert(key.to_owned());
                }
            }
        }
        assert_eq!(missing, BTreeSet::new());
    }

    #[test]
    fn every_problem_in_the_code_has_a_sentence() {
        let en = read(Lang::En);
        let mut code = String::new();
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        sources(&repo.join("app/src"), &mut code);
        sources(&repo.join("server/src"), &mut code);
        let flat: String = code.split_whitespace().collect();
        for call in ["Problem::invalid(\"", "Problem::conflict(\""] {
            for rest in flat.split(call).skip(1) {
                let key = format!("problem.{}", rest.split('"').next().unwrap_or_default());
                assert!(en.contains_key(&key), "{key}");
            }
        }
        for rest in flat.split("Problem::new(ProblemStatus::").skip(1) {
            // A code that is a variable is named where it gets its value.
            let literal = rest.split_once(",\"").filter(|(status, _)| status.chars().all(char::is_alphanumeric));
            if let Some(code) = literal.and_then(|(_, rest)| rest.split('"').next()) {
                assert!(en.contains_key(&format!("problem.{code}")), "problem.{code}");
            }
        }
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(fill("a {x} b {y} c", |n| (n == "x").then_some("1".into())), "a 1 b  c");
        assert_eq!(fill("{ {x", |_| None), "{ {x");
    }

    #[test]
    fn sizes_are_told_as_people_read_them() {
        let args = [("free_bytes", "1610612736"), ("host", "h")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        assert_eq!(message(Lang::En, "{free} at {host}{needed}", &args), "1.5 GiB at h");
    }

    #[test]
    fn the_best_language_that_there_is() {
        for (header, lang) in [
            ("", Lang::En),
            ("ko", Lang::Ko),
            ("ko-KR,ko;q=0.9,en-US;q=0.8", Lang::Ko),
            ("en-US,en;q=0.9,ko;q=0.8", Lang::En),
            ("fr,de;q=0.9", Lang::En),
            ("fr, ko;q=0.1", Lang::Ko),
            ("ko;q=0", Lang::En),
            (";;q=,", Lang::En),
        ] {
            assert_eq!(pick(header), lang, "{header}");
        }
    }
}
