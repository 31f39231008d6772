//! What single modules ask of their inputs beyond what each input is.

use super::action::Module;
use super::inputs::{Group, Inputs};
use crate::document::component::{Platform, Step};
use crate::document::decode::Reader;
use crate::document::expression::Template;

/// Properties that an installer's own inputs are about.
const FORBIDDEN_PROPERTIES: [&str; 3] = ["REBOOT", "REINSTALL", "REINSTALLMODE"];
/// Flags of msiexec's log.
const LOG_FLAGS: &str = "iwearucmopvx+!*";

/// Notes what is wrong with a step's inputs.
pub(super) fn check(reader: &Reader, module: &Module, step: &Step, inputs: &Inputs, platform: Platform) {
    for group in &inputs.groups {
        match module.name {
            "CopyFile" | "CopyFolder" | "MoveFile" | "MoveFolder" | "S3Upload" => {
                star_comes_last(reader, group, "source");
            }
            "DeleteFile" => star_comes_last(reader, group, "path"),
            "CreateFile" | "CreateFolder" if platform == Platform::Windows => not_on_windows(reader, module, group),
            "ExecutePowerShell" => one_script(reader, step, group),
            "InstallMSI" | "UninstallMSI" => installer(reader, group),
            "WebDownload" => both_or_none(reader, group),
            _ => {}
        }
    }
    match module.name {
        "ExecuteDocument" => fixed(reader, step),
        "Reboot" => {
            if let Some(span) = &step.timeout_span {
                reader.deviation(span, "`Reboot` has no `timeoutSeconds`; it has no effect", None);
            }
        }
        _ => {}
    }
}

fn star_comes_last(reader: &Reader, group: &Group<Template>, name: &str) {
    let (Some(text), Some(span)) = (group.literal(name), group.span(name)) else { return };
    let last = text.trim_end_matches(['/', '\\']).rfind(['/', '\\']).unwrap_or(0);
    if text[..last].contains('*') {
        reader.error(span, format!("`*` can stand in the last part of `{name}` only"));
    }
}

fn not_on_windows(reader: &Reader, module: &Module, group: &Group<Template>) {
    for name in ["owner", "group", "permissions"] {
        if let Some(span) = group.span(name) {
            reader.error(span, format!("`{name}` of `{}` is not supported on Windows", module.name));
        }
    }
}

fn one_script(reader: &Reader, step: &Step, group: &Group<Template>) {
    let place = step.inputs.as_ref().map_or(step.name.span.clone(), |node| node.span.start..node.span.start + 1);
    match (group.span("commands"), group.span("file")) {
        (Some(_), Some(span)) => reader.error(span, "`ExecutePowerShell` takes either `commands` or `file`, not both"),
        (None, None) => reader.error(&place, "`ExecutePowerShell` needs `commands` or `file`"),
        (None, Some(span)) => {
            let is_script = |file: String| file.to_ascii_lowercase().ends_with(".ps1");
            if !group.literal("file").is_none_or(is_script) {
                reader.error(span, "`file` has to end in .ps1");
            }
        }
        (Some(_), None) => {}
    }
}

fn installer(reader: &Reader, group: &Group<Template>) {
    if let (Some(flags), Some(span)) = (group.literal("logOptions"), group.span("logOptions"))
        && let Some(flag) = flags.chars().find(|flag| !LOG_FLAGS.contains(flag.to_ascii_lowercase()))
    {
        reader.error(span, format!("`{flag}` is no flag of msiexec's log; {LOG_FLAGS} are"));
    }
    let Some(span) = group.span("properties") else { return };
    for (name, _) in group.pairs("properties") {
        if FORBIDDEN_PROPERTIES.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name)) {
            reader.error(span, format!("the property `{name}` can't be set; the action sets it itself"));
        }
    }
}

fn both_or_none(reader: &Reader, group: &Group<Template>) {
    for (name, other) in [("checksum", "algorithm"), ("algorithm", "checksum")] {
        if let (Some(span), None) = (group.span(name), group.span(other)) {
            reader.warning(span, format!("without `{other}` nothing is verified"));
        }
    }
}

fn fixed(reader: &Reader, step: &Step) {
    if let (Some(span), Some(_)) = (&step.timeout_span, step.timeout) {
        reader.error(span, "`timeoutSeconds` of `ExecuteDocument` is -1 and nothing else");
    }
    if let (Some(span), 2..) = (&step.attempts_span, step.max_attempts) {
        reader.error(span, "`maxAttempts` of `ExecuteDocument` is 1 and nothing else");
    }
}
