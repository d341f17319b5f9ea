//! From hit to hit. The server looks through the log; the page goes there.

use super::Log;
use crate::builds::api::search_log;
use crate::locales::{t, tf};
use crate::ui::{format, sentence};
use leptos::prelude::*;
use leptos::task::spawn_local;

/// Looks for the next row after `hit` that holds `text`, and from the top when there is none.
pub fn find(log: Log, text: String, hit: StoredValue<Option<u64>>) {
    if text != log.mark.get_untracked() {
        hit.set_value(None);
        log.mark.set(text.clone());
    }
    // An answer that comes after a newer question was asked is nobody's any more.
    let asked = log.asked.try_update_value(|n| {
        *n += 1;
        *n
    });
    if text.is_empty() {
        log.said.set(String::new());
        return;
    }
    log.said.set(t("log.searching"));
    let id = log.id.get_value();
    let from = hit.get_value().map_or(0, |row| row + 1);
    spawn_local(async move {
        let mut found = search_log(id.clone(), text.clone(), from).await;
        let mut again = false;
        if matches!(found, Ok(None)) && from > 0 {
            again = true;
            found = search_log(id, text, 0).await;
        }
        if log.asked.try_get_value() != asked {
            return;
        }
        match found {
            Ok(Some(found)) => {
                hit.set_value(Some(found.row));
                let row = format::count(found.row + 1);
                log.said.set(tf(if again { "log.found_again" } else { "log.found" }, &[("row", &row)]));
                log.go_to(found.row);
                if found.beyond {
                    log.whole(found.row).await;
                }
                if log.asked.try_get_value() == asked {
                    show(log, found.row);
                }
            }
            Ok(None) => log.said.set(t("log.not_found")),
            Err(problem) => log.said.set(sentence(&problem)),
        }
    });
}

/// Brings the mark itself into sight, once its row is drawn; a row that is still on its way is waited for a little.
fn show(log: Log, row: u64) {
    const TRIES: u32 = 100;
    fn look(log: Log, row: u64, tries: u32) {
        request_animation_frame(move || {
            if tries > 0 && log.target.try_get_untracked() == Some(Some(row)) && !log.show_mark(row) {
                look(log, row, tries - 1);
            }
        });
    }
    look(log, row, TRIES);
}
