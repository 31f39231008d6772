//! Components as a recipe uses them: documents, scripts and playbooks, each with values for its parameters.

use std::path::Path;

use super::decode::{Fields, Reader, Spanned};
use super::recipe::{labels_with_spans, leaves_folder};
use super::syntax::{Node, Value};

/// A component as a recipe uses it.
#[derive(Debug, Clone)]
pub struct ComponentUse {
    /// A document's path, name with or without a version, or ARN; a script's or playbook's path.
    pub reference: Spanned<String>,
    /// What that is.
    pub work: Work,
    /// Values of its parameters.
    pub parameters: Vec<(Spanned<String>, Spanned<String>)>,
}

/// What a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A component document.
    Document,
    /// A script, which gets parameters as variables of its environment.
    Script,
    /// A playbook of Ansible's, which gets parameters as extra variables.
    Playbook {
        /// Whether Ansible stays in the image, if it is installed for the playbook.
        keep: bool,
        /// More arguments of `ansible-playbook`.
        arguments: Vec<String>,
    },
}

/// The items of a recipe's `components`.
pub(super) fn components(reader: &Reader, node: &Node) -> Vec<ComponentUse> {
    /// The service's quota, which can be raised there; here it only keeps a runaway document in bounds.
    const MOST: usize = 200;
    let items = reader.list(node, "components").unwrap_or_default();
    if items.len() > MOST {
        reader.error(&node.span, format!("a recipe has at most {MOST} components"));
    }
    items.iter().filter_map(|item| component(reader, item)).collect()
}

fn component(reader: &Reader, node: &Node) -> Option<ComponentUse> {
    if let Value::Scalar(_) = node.value {
        let reference = reader.text(node, "component")?;
        return Some(ComponentUse { reference, work: Work::Document, parameters: Vec::new() });
    }
    let mut fields = reader.map(node, "a component of a recipe")?;
    let document = fields.either("component", "componentArn");
    let (script, playbook) = (fields.get("script"), fields.get("ansible"));
    if document.is_none() && script.is_none() && playbook.is_none() {
        fields.missing("component");
    }
    if let [_, second, ..] = [document, script, playbook].into_iter().flatten().collect::<Vec<_>>().as_slice() {
        reader.error(&second.span, "a component is one of `component`, `script` and `ansible`; make two of it");
    }
    let parameters = fields.get("parameters").map(|node| parameters(reader, node)).unwrap_or_default();
    fields.finish(&["component", "componentArn", "script", "ansible", "parameters"]);
    if let Some(node) = script {
        parameters.iter().for_each(|(name, _)| check_variable(reader, name));
        let reference = beside(reader, reader.text(node, "script")?, "script");
        return Some(ComponentUse { reference, work: Work::Script, parameters });
    }
    if let Some(node) = playbook {
        let (reference, work) = ansible(reader, node)?;
        return Some(ComponentUse { reference, work, parameters });
    }
    Some(ComponentUse { reference: reader.text(document?, "component")?, work: Work::Document, parameters })
}

fn ansible(reader: &Reader, node: &Node) -> Option<(Spanned<String>, Work)> {
    let mut fields: Fields<'_> = reader.map(node, "`ansible`")?;
    let playbook = fields.require("playbook").and_then(|node| reader.text(node, "playbook"));
    let keep = fields.flag("keep");
    let arguments = fields.get("arguments").and_then(|node| reader.texts(node, "arguments")).unwrap_or_default();
    fields.finish(&["playbook", "keep", "arguments"]);
    if let Some(bad) = arguments.iter().find(|argument| argument.value.contains(['\n', '\0'])) {
        reader.error(&bad.span, "an argument is one line");
    }
    let arguments = arguments.into_iter().map(|argument| argument.value).collect();
    Some((beside(reader, playbook?, "playbook"), Work::Playbook { keep, arguments }))
}

/// A file of the recipe's own: a recipe from outside must not have any file of the host copied into a guest.
fn beside(reader: &Reader, path: Spanned<String>, what: &str) -> Spanned<String> {
    if let Some(problem) = leaves_folder(Path::new(&path.value)) {
        reader.error(&path.span, format!("`{what}` {problem}"));
    }
    path
}

/// A parameter of a script becomes a variable of its environment.
fn check_variable(reader: &Reader, name: &Spanned<String>) {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins_well = !name.value.starts_with(|c: char| c.is_ascii_digit());
    if name.value.is_empty() || !begins_well || !name.value.chars().all(is_good) {
        let message = format!("`{}` is no name of a variable: letters, digits and underscores", name.value);
        reader.error(&name.span, message);
    }
}

/// A map of names and values, or the API's list of `{name, value: [text]}`.
fn parameters(reader: &Reader, node: &Node) -> Vec<(Spanned<String>, Spanned<String>)> {
    if let Value::Mapping(_) = node.value {
        return labels_with_spans(reader, node, "parameters");
    }
    let mut parameters = Vec::new();
    for item in reader.list(node, "parameters").unwrap_or_default() {
        let Some(mut fields) = reader.map(item, "a parameter") else { continue };
        let name = fields.require("name").and_then(|node| reader.text(node, "name"));
        let value = fields.require("value");
        fields.finish(&["name", "value"]);
        let value = value.and_then(|node| match &node.value {
            Value::Sequence(values) if values.len() == 1 => reader.text(&values[0], "value"),
            Value::Sequence(_) => {
                reader.error(&node.span, "`value` is a list with one text");
                None
            }
            _ => reader.text(node, "value"),
        });
        parameters.extend(name.zip(value));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::recipe;
    use crate::document::syntax::Source;

    fn decoded(components: &str) -> Result<Vec<ComponentUse>, String> {
        let text = format!("name: web\nversion: 1.0.0\nparentImage: x\ncomponents:\n{components}");
        let decoded = recipe::decode(&Source::new("r.yaml", text));
        decoded.map(|(recipe, _)| recipe.components).map_err(|report| report.to_string())
    }

    #[test]
    fn scripts_and_playbooks() {
        let components = decoded(
            "  - { script: ./install.sh, parameters: { PORT: 8080 } }\n\
             \x20 - ansible: { playbook: site/site.yml, keep: true, arguments: [--tags, web] }\n    parameters: { port: 1 }\n\
             \x20 - ansible: { playbook: site.yml }\n",
        );
        let components = components.unwrap();
        assert_eq!((components[0].reference.value.as_str(), &components[0].work), ("./install.sh", &Work::Script));
        let arguments = vec!["--tags".to_owned(), "web".to_owned()];
        assert_eq!(components[1].work, Work::Playbook { keep: true, arguments });
        assert_eq!(components[2].work, Work::Playbook { keep: false, arguments: Vec::new() });
    }

    #[test]
    fn what_is_wrong_with_them_is_said_at_once() {
        let problems = decoded(
            "  - { script: ../install.sh, parameters: { my-port: 8080, 1st: x } }\n\
             \x20 - { script: a.sh, component: b }\n\
             \x20 - { ansible: site.yml }\n\
             \x20 - { ansible: { playbok: site.yml, arguments: [\"a\\nb\"] } }\n\
             \x20 - { ansible: { playbook: /etc/site.yml } }\n",
        );
        insta::assert_snapshot!(problems.unwrap_err(), @"
        r.yaml:5:15: error: `script` leaves the recipe's folder; files come from beside the recipe or below
        r.yaml:5:44: error: `my-port` is no name of a variable: letters, digits and underscores
        r.yaml:5:59: error: `1st` is no name of a variable: letters, digits and underscores
        r.yaml:6:15: error: a component is one of `component`, `script` and `ansible`; make two of it
        r.yaml:7:16: error: `ansible` has to be a map, and this is a single value
        r.yaml:8:16: error: `ansible` needs the field `playbook`
        r.yaml:8:18: error: `ansible` has no field `playbok` (did you mean `playbook`?)
        r.yaml:8:49: error: an argument is one line
        r.yaml:9:28: error: `playbook` is absolute; files come from beside the recipe or below
        ");
    }
}
