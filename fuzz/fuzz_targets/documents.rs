//! Recipes, components, base images, pipelines and what belongs to them, of any bytes: a document or diagnostics, never a panic. Component documents also as
//! part of templates, for every platform, as strictly as can be; and everything as something to import.
#![no_main]

use std::path::Path;

use goldsmith::component::{Program, References, Rules};
use goldsmith::document::cloudformation::Environment;
use goldsmith::document::component::Platform;
use goldsmith::document::decode::Strictness;
use goldsmith::document::syntax::Source;
use goldsmith::document::{base_image, carrier, recipe, resource};
use goldsmith::import::import;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = Source::new("fuzz.yaml", text);
    let _recipe = recipe::decode(&source);
    let _references = recipe::decode_references(&source);
    let _base = base_image::decode(&source);
    if let Err(report) = resource::decode(&source) {
        assert!(report.has_errors());
    }
    let _is_one = resource::has_pipeline(&source);
    let _imported = import(&[source.clone()], &Environment::default(), Path::new("nowhere"));
    let Ok((found, _)) = carrier::find(&source) else { return };
    for found in found {
        for platform in [Platform::Linux, Platform::Windows] {
            let rules = Rules { platform, strictness: Strictness::Strict, inline_size: found.inline_size, ..Rules::default() };
            let _strict = Program::check(&found.source, rules);
        }
        match Program::compile(&found.source, &[], Strictness::Compat) {
            Ok((program, report, _)) => {
                let _missing = program.missing_references(&References::new());
                assert!(!report.has_errors());
            }
            Err(report) => {
                // Every place that is named is one.
                for diagnostic in &report.diagnostics {
                    let place = report.source.position(diagnostic.span.start);
                    assert!(place.line >= 1 && place.column >= 1);
                }
                assert!(report.has_errors() && !report.to_string().is_empty());
            }
        }
    }
});
