//! One row of the log. Texts are text nodes: nothing that a build prints becomes HTML.

use super::ansi::{self, Span};
use super::{Log, plain_click};
use crate::locales::{has, t, tf, tm};
use crate::ui::format;
use kiops_events::rows::line_seconds;
use kiops_events::view::NoteView;
use kiops_events::{Place, Row, RowKind};
use leptos::prelude::*;
use leptos::task::spawn_local;
#[cfg(feature = "ssr")]
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn view(
    index: u64,
    row: Option<Arc<Row>>,
    log: Log,
    here: StoredValue<String>,
    notes: Signal<Vec<NoteView>>,
) -> AnyView {
    let number = index + 1;
    let Some(row) = row else {
        return view! {
            <div class="row unknown" data-row=index>
                <span class="ln">{number}</span>
                " "
                <span class="tx">"…"</span>
            </div>
        }
        .into_any();
    };
    let class = match row.kind {
        RowKind::Header => "row k-header",
        RowKind::Line => "row k-line",
        RowKind::Transfer => "row k-transfer",
        RowKind::Done => "row k-done",
        RowKind::Cached => "row k-cached",
        RowKind::Error => "row k-error",
        RowKind::Canceled => "row k-canceled",
        RowKind::Warning => "row k-warning",
        RowKind::Note => "row k-note",
    };
    let step = match row.place {
        Some(Place::Step(n)) => Some(format!("#{n} ")),
        _ => None,
    };
    let seconds = match (row.kind, row.place, row.at_ms) {
        (RowKind::Line, Some(Place::Step(_)), Some(ms)) => Some(format!("{} ", line_seconds(ms))),
        _ => None,
    };
    let id = format!("row-{number}");
    let href = here.with_value(|here| format!("{here}&row={number}"));
    let text = if row.kind == RowKind::Note {
        let text = move || {
            let text = notes.with(|notes| note_text(&row, index, notes));
            log.mark.with(|wanted| stretch(Span { text, class: String::new() }, wanted))
        };
        view! { <span class="tx">{text}</span> }.into_any()
    } else {
        line(index, row, log)
    };
    // The click marks the row where it is; whoever follows the link from elsewhere is led to it.
    let point = move |event| {
        if plain_click(&event) {
            log.point_at(index);
        }
    };
    view! {
        <div class=class id=id data-row=index class:target=move || log.target.get() == Some(index)>
            // Forty links that all do the same would stand between a keyboard and the rest of the page.
            <a class="ln" href=href tabindex="-1" on:click=point>{number}</a>
            " "
            {step.map(|step| view! { <span class="st">{step}</span> })}
            {seconds.map(|seconds| view! { <span class="tm">{seconds}</span> })}
            {text}
        </div>
    }
    .into_any()
}

fn line(index: u64, row: Arc<Row>, log: Log) -> AnyView {
    let (cut, whole_bytes) = (row.cut, row.whole_bytes);
    let text = move || {
        log.mark.with(|wanted| ansi::spans(&row.text).into_iter().map(|span| stretch(span, wanted)).collect_view())
    };
    view! {
        <span class="tx">{text}</span>
        {whole_bytes.map(|bytes| show_whole(index, bytes, log))}
        {cut.then(|| view! { <span class="cut" title=t("log.cut")>"↩"</span> })}
    }
    .into_any()
}

/// Of a very long row the page has the beginning; the rest comes when somebody wants it.
fn show_whole(index: u64, bytes: u64, log: Log) -> AnyView {
    let pending = RwSignal::new(false);
    let fetch = move |_| {
        pending.set(true);
        spawn_local(async move {
            log.whole(index).await;
            pending.try_set(false);
        });
    };
    view! {
        <button type="button" class="more" aria-busy=move || pending.get().to_string() on:click=fetch>
            {tf("log.show_whole", &[("size", &format::memory(bytes))])}
        </button>
    }
    .into_any()
}

/// A stretch of one look, with what was searched for marked in it.
fn stretch(span: Span, wanted: &str) -> AnyView {
    let parts: Vec<AnyView> = split(&span.text, wanted)
        .into_iter()
        .map(|(hit, text)| if hit { view! { <mark>{text}</mark> }.into_any() } else { text.into_any() })
        .collect();
    if span.class.is_empty() { parts.into_any() } else { view! { <span class=span.class>{parts}</span> }.into_any() }
}

/// Cuts a text at each place where `wanted` stands, whatever the case of its Latin letters.
fn split(text: &str, wanted: &str) -> Vec<(bool, String)> {
    let mut out = Vec::new();
    if wanted.is_empty() {
        return vec![(false, text.to_owned())];
    }
    let (hay, needle) = (text.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    let mut from = 0;
    while let Some(at) = hay[from..].find(&needle) {
        let (start, end) = (from + at, from + at + needle.len());
        if start > from {
            out.push((false, text[from..start].to_owned()));
        }
        out.push((true, text[start..end].to_owned()));
        from = end;
    }
    if from < text.len() || out.is_empty() {
        out.push((false, text[from..].to_owned()));
    }
    out
}

/// What the product itself says in a log, in the reader's language.
fn note_text(row: &Row, index: u64, notes: &[NoteView]) -> String {
    if let Some(Place::Phase(phase)) = row.place {
        return t(&format!("phase.{}", kiops_events::rows::phase_name(phase)));
    }
    match notes.iter().find(|note| note.row == index) {
        Some(note) => note_sentence(&note.code, &note.args),
        None => {
            let (code, args) = parse_note(&row.text);
            note_sentence(&code, &args)
        }
    }
}

/// A row as its reader sees it, for the search.
#[cfg(feature = "ssr")]
pub fn as_shown(row: &Row) -> Cow<'_, str> {
    match row.kind {
        // A note's arguments are read back from its text; `u64::MAX` is nobody's row.
        RowKind::Note => note_text(row, u64::MAX, &[]).into(),
        _ => ansi::plain(&row.text),
    }
}

pub fn note_sentence(code: &str, args: &BTreeMap<String, String>) -> String {
    let key = format!("note.{code}");
    if has(&key) {
        tm(&key, args)
    } else {
        args.iter().fold(code.to_owned(), |text, (name, value)| format!("{text} {name}={value}"))
    }
}

/// `code name=value with spaces other=1` in its parts.
fn parse_note(text: &str) -> (String, BTreeMap<String, String>) {
    let mut words = text.split(' ');
    let code = words.next().unwrap_or_default().to_owned();
    let mut args = BTreeMap::new();
    let mut last: Option<String> = None;
    for word in words {
        let begins = word
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        match (begins, &last) {
            (Some((name, value)), _) => {
                args.insert(name.to_owned(), value.to_owned());
                last = Some(name.to_owned());
            }
            (None, Some(name)) => {
                if let Some(value) = args.get_mut(name) {
                    value.push(' ');
                    value.push_str(word);
                }
            }
            (None, None) => {}
        }
    }
    (code, args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_cut_out_whatever_their_case() {
        let cut = |text, wanted| split(text, wanted);
        let own = |parts: &[(bool, &str)]| parts.iter().map(|(h, t)| (*h, (*t).to_owned())).collect::<Vec<_>>();
        assert_eq!(cut("an Error here", "error"), own(&[(false, "an "), (true, "Error"), (false, " here")]));
        assert_eq!(cut("aaa", "A"), own(&[(true, "a"), (true, "a"), (true, "a")]));
        assert_eq!(cut("가나 error", "나 E"), own(&[(false, "가"), (true, "나 e"), (false, "rror")]));
        assert_eq!(cut("", "x"), own(&[(false, "")]));
        assert_eq!(cut("abc", ""), own(&[(false, "abc")]));
    }

    #[test]
    fn notes_are_read_back() {
        let (code, args) = parse_note("commit author=A B subject=fix x=1 now");
        assert_eq!(code, "commit");
        assert_eq!(args.get("author").map(String::as_str), Some("A B"));
        assert_eq!(args.get("subject").map(String::as_str), Some("fix"));
        assert_eq!(args.get("x").map(String::as_str), Some("1 now"));
    }
}
