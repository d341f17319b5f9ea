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

/// A value as people read it: `free` is told of `free_bytes`, `took` of `took_ms`.
fn argument<'a>(args: &'a BTreeMap<String, String>, name: &str) -> Option<Cow<'a, str>> {
    args.get(name).map(|value| value.as_str().into()).or_else(|| {
        let number = |unit: &str| args.get(&format!("{name}_{unit}"))?.parse().ok();
        let time = || Some(crate::ui::format::clock(i64::try_from(number("ms")?).ok()?));
        number("bytes").map(crate::ui::format::memory).or_else(time).map(Cow::from)
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
                .and_then(|text| serde_json::from_slice(text.as_bytes()).ok())
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
    use crate::error::Problem;
    use crate::model::CheckReport;
    use leptos::prelude::use_context;
    use std::collections::{BTreeMap, BTreeSet};
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

    /// The families whose sentences only the server says.
    const UNTOLD: &str = "finding.";

    /// Puts a check's findings into words.
    pub fn tell_findings(lang: Lang, report: &mut CheckReport) {
        for finding in &mut report.findings {
            let key = format!("{UNTOLD}{}", finding.code);
            // Every test that meets a finding holds it against its sentences.
            debug_assert_eq!(
                find_in(lang, &key)
                    .map(places)
                    .filter(|places| places.iter().any(|p| argument(&finding.args, p).is_none())),
                None,
                "{finding:?}"
            );
            finding.title = message(lang, &format!("{UNTOLD}name.{}", finding.name), &finding.args);
            finding.message = message(lang, &key, &finding.args);
            let advice = format!("{key}.do");
            finding.advice = find_in(lang, &advice).map(|_| message(lang, &advice, &finding.args));
        }
    }

    /// Names of a text's places.
    pub(super) fn places(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
    }

    /// What is wrong between a problem and its sentences: a language without one, a place that nothing fills, an
    /// argument that no sentence tells. For whoever makes problems, to be held against every one of them.
    pub fn unmatched(problem: &Problem) -> Option<String> {
        let args: BTreeSet<&str> = problem.args.keys().map(String::as_str).collect();
        Lang::ALL.into_iter().find_map(|lang| {
            let (code, key) = (lang.code(), format!("problem.{}", problem.code));
            match find_in(lang, &key).map(places) {
                None => Some(format!("{key} has no sentence in {code}")),
                Some(places) if places != args => Some(format!("{key} in {code} tells {places:?} of {args:?}")),
                Some(_) => None,
            }
        })
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
        let told: BTreeMap<_, _> = texts(lang).iter().filter(|(key, _)| !key.starts_with(UNTOLD)).collect();
        serde_json::to_string(&told).unwrap_or_default().replace("</", "<\\/")
    }
}

#[cfg(all(test, feature = "ssr"))]
mod tests {
    use super::*;
    use crate::error::{Problem, ProblemStatus};
    use std::collections::BTreeSet;
    use std::path::Path;

    fn read(lang: Lang) -> Texts {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("locales/{}.json", lang.code()));
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    /// The product's own code below a folder, without its tests and its comments.
    fn sources(folder: &str) -> String {
        fn walk(folder: &Path, out: &mut String) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, out);
                } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
                    let code =
                        code.split("\n#[cfg(all(test, feature = \"ssr\"))]\nmod tests").next().unwrap_or_default();
                    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                        out.push_str(line.trim());
                        out.push('\n');
                    }
                }
            }
        }
        let mut out = String::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut out);
        out
    }

    /// What stands between a bracket that has just been opened and the one that closes it, and what comes after.
    fn within(code: &str) -> (&str, &str) {
        let (mut depth, mut quoted, mut escaped) = (1, false, false);
        for (at, c) in code.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '(' | '[' | '{' if !quoted => depth += 1,
                ')' | ']' | '}' if !quoted => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return (&code[..at], &code[at + 1..]);
            }
        }
        panic!("a bracket that nothing closes: {}", &code[..code.len().min(80)]);
    }

    /// A call's arguments that are literal texts, by their place.
    fn literal(arguments: &str, place: usize) -> Option<&str> {
        let argument = arguments.split(',').nth(place)?.trim();
        argument.strip_prefix('"')?.strip_suffix('"')
    }

    /// Every problem that the code makes where its code is a literal: code, and the arguments that are given right there.
    fn problems(code: &str) -> Vec<(String, BTreeSet<String>)> {
        let makers = [("Problem::new(", 1), ("Problem::invalid(", 0), ("Problem::conflict(", 0), ("Failure::of(", 1)];
        let fixed =
            [("Problem::not_found()", "not_found", None), ("Problem::unauthenticated()", "sign_in_needed", None)];
        let mut found = Vec::new();
        for (call, place) in makers {
            for rest in code.split(call).skip(1) {
                let (arguments, mut rest) = within(rest);
                let Some(code) = literal(arguments, place) else { continue };
                let mut args = BTreeSet::new();
                while let Some((method, after)) = rest.trim_start().strip_prefix('.').and_then(|r| r.split_once('(')) {
                    let (arguments, after) = within(after);
                    match method {
                        "with" => args.extend(literal(arguments, 0).map(str::to_owned)),
                        "at" => {}
                        _ => break,
                    }
                    rest = after;
                }
                found.push((code.to_owned(), args));
            }
        }
        for (call, code_of, arg) in fixed {
            if code.contains(call) {
                found.push((code_of.to_owned(), arg.into_iter().map(str::to_owned).collect()));
            }
        }
        found
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

    /// Keys are dotted words: a literal that begins like one and is one names a text, wherever it stands.
    #[test]
    fn every_key_in_the_code_has_a_text() {
        // Inputs by their name in the API are spelled alike, and so are hosts.
        const OTHERS: [&str; 3] = ["settings.dockerfile.path", "settings.time_limit_s", "registry.example.com"];
        let en = read(Lang::En);
        let families: BTreeSet<&str> = en.keys().filter_map(|key| key.split('.').next()).collect();
        let code = sources("app/src");
        let literals: BTreeSet<&str> = code.split('"').filter(|l| l.len() < 60).collect();
        let is_key = |l: &str| {
            let mut parts = l.split('.');
            let word =
                |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            parts.next().is_some_and(|first| families.contains(first)) && l.contains('.') && parts.all(word)
        };
        let missing: Vec<_> =
            literals.into_iter().filter(|l| is_key(l) && !OTHERS.contains(l) && !en.contains_key(*l)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn every_problem_in_the_code_has_a_sentence_that_tells_its_arguments() {
        let found = problems(&(sources("app/src") + &sources("server/src")));
        assert!(found.len() > 60, "{} were found", found.len());
        for (code, args) in found {
            let mut problem = Problem::new(ProblemStatus::Invalid, &code);
            problem.args = args.into_iter().map(|name| (name, String::new())).collect();
            assert_eq!(unmatched(&problem), None);
        }
        assert_eq!(unmatched(&Problem::internal("x")), None);
        let lacks = unmatched(&Problem::new(ProblemStatus::Upstream, "dns").with("hots", "x"));
        assert!(lacks.is_some_and(|lacks| lacks.contains("hots")));
        assert!(unmatched(&Problem::conflict("no_such_code")).is_some());
    }

    #[test]
    fn no_problem_has_a_sentence_for_nothing() {
        let code = sources("app/src") + &sources("server/src");
        let en = read(Lang::En);
        for key in en.keys().filter_map(|key| key.strip_prefix("problem.")) {
            let used = code.contains(&format!("\"{key}\"")) || code.contains(&format!("\"problem.{key}\""));
            assert!(used, "nothing says problem.{key}");
        }
    }

    #[test]
    fn every_note_has_its_words() {
        let en = read(Lang::En);
        let code = sources("agent/src") + &sources("server/src");
        let mut found = 0;
        for call in [".note(", "append_note("] {
            for rest in code.split(call).skip(1) {
                let arguments = within(rest).0;
                let Some(note) = arguments.split('"').nth(1).filter(|n| !n.contains(['{', ' '])) else { continue };
                assert!(en.contains_key(&format!("note.{note}")), "note.{note}");
                found += 1;
            }
        }
        assert!(found > 5, "{found} were found");
    }

    /// Code and arguments that are given right there, of every finding that the code makes.
    #[test]
    fn every_finding_has_its_words_and_no_words_are_for_nothing() {
        let (en, code) = (read(Lang::En), sources("server/src/check"));
        let (mut names, mut codes) = (BTreeSet::new(), BTreeSet::new());
        for call in ["Finding::ok(", "Finding::warning(", "Finding::failed(", "Finding::skipped("] {
            for rest in code.split(call).skip(1) {
                let arguments = within(rest).0;
                names.extend(literal(arguments, 0));
                codes.extend(literal(arguments, 1));
            }
        }
        for key in
            names.iter().map(|name| format!("finding.name.{name}")).chain(codes.iter().map(|c| format!("finding.{c}")))
        {
            assert!(en.contains_key(&key), "{key}");
        }
        assert!(codes.len() > 40, "{} were found", codes.len());
        for key in en.keys().filter_map(|key| key.strip_prefix("finding.")) {
            let said = key.strip_prefix("name.").unwrap_or(key);
            let said = said.strip_suffix(".do").unwrap_or(said);
            assert!(code.contains(&format!("\"{said}\"")), "nothing says finding.{key}");
        }
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(fill("a {x} b {y} c", |n| (n == "x").then_some("1".into())), "a 1 b  c");
        assert_eq!(fill("{ {x", |_| None), "{ {x");
    }

    #[test]
    fn sizes_and_times_are_told_as_people_read_them() {
        let args = [("free_bytes", "1610612736"), ("took_ms", "65000"), ("host", "h")];
        let args = args.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        assert_eq!(message(Lang::En, "{free} at {host}{needed} for {took}", &args), "1.5 GiB at h for 1:05");
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
