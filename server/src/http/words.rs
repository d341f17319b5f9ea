//! The reader's language, and what is said in it.

use axum::http::{HeaderMap, header};
use kiops_app::error::Problem;
use kiops_app::locales::{self, Lang};
use kiops_app::model::Diagnosis;

/// The language that a request asks for.
pub fn language(headers: &HeaderMap) -> Lang {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    locales::pick(accepted.unwrap_or_default())
}

pub fn of_problem(lang: Lang, problem: &Problem) -> String {
    locales::message(lang, &format!("problem.{}", problem.code), &problem.args)
}

pub fn of_diagnosis(lang: Lang, diagnosis: &Diagnosis) -> String {
    let part = |part: &str| locales::message(lang, &format!("failure.{}.{part}", diagnosis.code), &diagnosis.arguments);
    format!("{}: {} {}", part("title"), part("why"), part(Diagnosis::advice(&diagnosis.arguments)))
}
