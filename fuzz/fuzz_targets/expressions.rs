//! Texts with references, and conditions: what comes of them is bounded by what goes in, and nothing panics.
#![no_main]

use goldsmith::component::fuzz_condition;
use goldsmith::document::expression::Template;
use goldsmith::document::syntax::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let template = Template::parse(text);
    // Written out again, it is the same text but for spaces within braces.
    let written = template.resolve(|reference| Ok::<_, ()>(format!("{{{{{reference}}}}}")));
    assert!(written.is_ok_and(|written| written.len() <= text.len()));
    let empty = template.resolve(|_| Ok::<_, ()>(String::new()));
    assert!(empty.is_ok_and(|empty| empty.len() <= text.len()));
    for (reference, range) in template.references() {
        assert!(text.get(range).is_some_and(|written| written.starts_with("{{") && written.ends_with("}}")));
        assert!(!reference.to_string().is_empty());
    }
    fuzz_condition(&Source::new("fuzz.yaml", text));
});
