//! Recipes, components and base images of any bytes: a document or diagnostics, never a panic.
#![no_main]

use goldsmith::component::Program;
use goldsmith::document::decode::Strictness;
use goldsmith::document::syntax::Source;
use goldsmith::document::{base_image, recipe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = Source::new("fuzz.yaml", text);
    let _recipe = recipe::decode(&source);
    let _base = base_image::decode(&source);
    let _program = Program::compile(&source, &[], Strictness::Compat);
});
