//! Help: short, and only about what there is.

use crate::locales::t;
use crate::model::RunnerKind;
use crate::services::Shown;
use leptos::prelude::*;

const ORDER: &str = "COPY package*.json ./\nRUN npm ci\nCOPY . .\nRUN npm run build";
const STAGES: &str = "FROM node:20 AS builder\nWORKDIR /app\nCOPY . .\nRUN npm ci && npm run build\n\nFROM node:20-alpine\nWORKDIR /app\nCOPY --from=builder /app/dist ./dist\nCMD [\"node\", \"dist/main.js\"]";
const MOUNT: &str = "RUN --mount=type=cache,target=/root/.npm npm ci";
const IGNORE: &str = "node_modules\n.git\n.env\n*.log\n.DS_Store";

const TROUBLES: [&str; 9] =
    ["missing", "case", "git", "npm", "copy", "permission", "memory", "push_auth", "push_denied"];

#[component]
pub fn HelpTab() -> impl IntoView {
    let shown = expect_context::<Shown>();
    let (in_pods, keeps) = shown.system.with_untracked(|system| {
        system.as_ref().map_or((true, true), |s| (s.runner == RunnerKind::Kubernetes, s.keeps_cache_mounts))
    });
    let how = if in_pods { "help.how_pods" } else { "help.how_here" };
    let mount = if keeps { "help.mount_text" } else { "help.mount_lost" };
    let part = |title: &str, text: &str, code: Option<&'static str>| {
        view! {
            <section class="help-part">
                <h3>{t(title)}</h3>
                <p>{t(text)}</p>
                {code.map(|code| view! { <pre><code>{code}</code></pre> })}
            </section>
        }
        .into_any()
    };
    view! {
        <div class="sheet-body help" tabindex="0">
            <div class="help-grid">
                {part("help.how_title", how, None)}
                {part("help.dockerfile_title", "help.dockerfile_text", None)}
                {part("help.order_title", "help.order_text", Some(ORDER))}
                {part("help.mount_title", mount, Some(MOUNT))}
                {part("help.stages_title", "help.stages_text", Some(STAGES))}
                {part("help.ignore_title", "help.ignore_text", Some(IGNORE))}
            </div>
            <h3>{t("help.trouble_title")}</h3>
            <div class="table-scroll">
                <table class="trouble">
                    <thead>
                        <tr>
                            <th scope="col">{t("help.seen")}</th>
                            <th scope="col">{t("help.todo")}</th>
                        </tr>
                    </thead>
                    <tbody>
                        {TROUBLES
                            .into_iter()
                            .map(|name| {
                                view! {
                                    <tr>
                                        <td>{t(&format!("help.{name}_seen"))}</td>
                                        <td>{t(&format!("help.{name}_todo"))}</td>
                                    </tr>
                                }
                            })
                            .collect_view()}
                    </tbody>
                </table>
            </div>
            <p class="quiet">{t("help.later")}</p>
        </div>
    }
    .into_any()
}
