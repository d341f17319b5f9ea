//! The Build dialog. Its state is in the address: `?build=settings|run|history|help`, and `&id=` for a build.

use super::help::HelpTab;
use super::history::HistoryTab;
use super::run::RunTab;
use super::settings::SettingsTab;
use super::start::AtHand;
use crate::locales::t;
use crate::services::Shown;
use crate::ui::PageDialog;
use leptos::ev;
use leptos::prelude::*;
use leptos::wasm_bindgen::JsCast;
use leptos_router::hooks::use_query_map;
use web_sys::HtmlElement;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tab {
    Settings,
    Run,
    History,
    Help,
}

impl Tab {
    const ALL: [Self; 4] = [Self::Settings, Self::Run, Self::History, Self::Help];

    fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Run => "run",
            Self::History => "history",
            Self::Help => "help",
        }
    }

    fn title(self) -> String {
        match self {
            Self::Settings => t("build.settings"),
            Self::Run => t("build.run"),
            Self::History => t("build.history"),
            Self::Help => t("build.help"),
        }
    }
}

#[component]
pub fn BuildDialog(shown: Shown) -> impl IntoView {
    let (name, base, fresh) =
        shown.detail.with_untracked(|d| (d.name.clone(), format!("/services/edit/{}", d.id), d.settings.version == 0));
    AtHand::provide();
    let query = use_query_map();
    let tab = Memo::new(move |_| {
        query.with(|q| {
            let wanted = q.get_str("build").unwrap_or_default();
            let default = if fresh { Tab::Settings } else { Tab::Run };
            Tab::ALL.into_iter().find(|t| t.as_str() == wanted).unwrap_or(default)
        })
    });
    // The build that was looked at stays chosen while one reads in another tab.
    let seen = StoredValue::new(String::new());
    let href = {
        let base = base.clone();
        move |to: Tab| {
            query.with(|q| {
                if let Some(id) = q.get_str("id") {
                    seen.set_value(id.to_owned());
                }
            });
            let id = seen.get_value();
            if to == Tab::Run && !id.is_empty() {
                format!("{base}?build=run&id={id}")
            } else {
                format!("{base}?build={}", to.as_str())
            }
        }
    };
    // A link or a button of another tab is gone with it: its focus goes to what came in its place.
    Effect::new(move |before: Option<Tab>| {
        let now = tab.get();
        if before.is_some_and(|before| before != now) {
            set_timeout(
                || {
                    if crate::ui::browser::focused().is_none() {
                        crate::ui::browser::focus_soon("#tab-panel");
                    }
                },
                std::time::Duration::ZERO,
            );
        }
        now
    });
    let on_arrows = move |event: ev::KeyboardEvent| {
        let step = match event.key().as_str() {
            "ArrowRight" => 1,
            "ArrowLeft" => Tab::ALL.len() - 1,
            _ => return,
        };
        event.prevent_default();
        let next = Tab::ALL[(tab.get_untracked() as usize + step) % Tab::ALL.len()];
        let link = crate::ui::browser::by_id(&format!("tab-{}", next.as_str()));
        if let Some(link) = link.and_then(|l| l.dyn_into::<HtmlElement>().ok()) {
            let _ = link.focus();
            link.click();
        }
    };
    view! {
        <PageDialog title=t("build.title") subtitle=name close=Signal::stored(base) class="build">
            <div class="tabs" role="tablist" aria-label=t("build.title") on:keydown=on_arrows>
                {Tab::ALL
                    .into_iter()
                    .map(|this| {
                        let href = href.clone();
                        let active = move || tab.get() == this;
                        view! {
                            <a
                                role="tab"
                                id=format!("tab-{}", this.as_str())
                                href=move || href(this)
                                aria-selected=move || if active() { "true" } else { "false" }
                                aria-controls="tab-panel"
                                tabindex=move || if active() { "0" } else { "-1" }
                            >
                                {this.title()}
                            </a>
                        }
                    })
                    .collect_view()}
            </div>
            <div
                class="tab-panel"
                id="tab-panel"
                role="tabpanel"
                tabindex="-1"
                aria-labelledby=move || format!("tab-{}", tab.get().as_str())
            >
                {move || match tab.get() {
                    Tab::Settings => view! { <SettingsTab shown=shown/> }.into_any(),
                    Tab::Run => view! { <RunTab shown=shown/> }.into_any(),
                    Tab::History => view! { <HistoryTab shown=shown/> }.into_any(),
                    Tab::Help => view! { <HelpTab/> }.into_any(),
                }}
            </div>
        </PageDialog>
    }
    .into_any()
}
