//! A test's results for CI systems.

use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::report::CliError;
use crate::host::file;
use crate::store::Image;
use crate::store::manifest::{Test, TestCase as Case};

/// Writes a test of an image.
pub(super) fn write(path: &Path, image: &Image, test: &Test) -> Result<(), CliError> {
    let report = report(&image.id.to_string(), test);
    let text = report.to_string().map_err(std::io::Error::other)?;
    Ok(file::write(path, text.as_bytes())?)
}

/// A suite for each component, a case for each step.
fn report(image: &str, test: &Test) -> Report {
    let mut report = Report::new(image);
    for cases in test.cases.chunk_by(|a, b| a.component == b.component) {
        let mut suite = TestSuite::new(cases[0].component.as_str());
        suite.add_test_cases(cases.iter().map(case));
        report.add_test_suite(suite);
    }
    report
}

fn case(case: &Case) -> TestCase {
    let status = match &case.failure {
        None => TestCaseStatus::success(),
        Some(failure) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failure.lines().next().unwrap_or_default());
            status.set_description(failure.as_str());
            status
        }
    };
    let mut result = TestCase::new(case.name.as_str(), status);
    result.set_classname(case.component.as_str());
    result.set_time(Duration::from_secs_f64(case.seconds.max(0.0)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_for_each_component_and_a_case_for_each_step() {
        let case = |component: &str, name: &str, failure: Option<&str>| Case {
            component: component.to_owned(),
            name: name.to_owned(),
            action: String::new(),
            seconds: 1.5,
            failure: failure.map(str::to_owned),
        };
        let test = Test {
            finished: jiff::Timestamp::UNIX_EPOCH,
            disk: "ab".to_owned(),
            passed: false,
            cases: vec![
                case("boot", "the system comes up", None),
                case("nginx", "Page", Some("exit status 7\n    curl: <no> & \u{1} connection")),
                case("nginx", "Service", None),
            ],
        };
        let mut report = report("nginx/1.0.0/1", &test);
        report.uuid = None;
        insta::assert_snapshot!(report.to_string().unwrap(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="nginx/1.0.0/1" tests="3" skipped="0" failures="1" errors="0">
            <testsuite name="boot" tests="1" skipped="0" errors="0" failures="0">
                <testcase name="the system comes up" classname="boot" time="1.500"/>
            </testsuite>
            <testsuite name="nginx" tests="2" skipped="0" errors="0" failures="1">
                <testcase name="Page" classname="nginx" time="1.500">
                    <failure message="exit status 7">exit status 7
            curl: &lt;no&gt; &amp;  connection</failure>
                </testcase>
                <testcase name="Service" classname="nginx" time="1.500"/>
            </testsuite>
        </testsuites>
        "#);
    }
}
