//! Components and base images that goldsmith brings along, so that it works from any folder.

use std::sync::Arc;

use super::syntax::Source;
use crate::store::version::{Version, VersionPattern};

/// A component that goldsmith brings along.
#[derive(Debug, Clone, Copy)]
pub struct Component {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: Version,
    text: &'static str,
}

const fn component(name: &'static str, text: &'static str) -> Component {
    Component { name, version: Version { major: 1, minor: 0, patch: 0 }, text }
}

macro_rules! file {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path))
    };
}

/// All of them, by name.
pub static COMPONENTS: [Component; 19] = [
    component("amazon-cloudwatch-agent-linux", file!("components/amazon-cloudwatch-agent-linux.yaml")),
    component("apt-repository-test-linux", file!("components/apt-repository-test-linux.yaml")),
    component("aws-cli-version-2-linux", file!("components/aws-cli-version-2-linux.yaml")),
    component("chrony-time-configuration-test", file!("components/chrony-time-configuration-test.yaml")),
    component("docker-ce-linux", file!("components/docker-ce-linux.yaml")),
    component("ebs-volume-usage-test-linux", file!("components/ebs-volume-usage-test-linux.yaml")),
    component("eni-attachment-test-linux", file!("components/eni-attachment-test-linux.yaml")),
    component("harden-ssh", file!("components/harden-ssh.yaml")),
    component("hello-world-linux", file!("components/hello-world-linux.yaml")),
    component("install-docker", file!("components/install-docker.yaml")),
    component("install-nginx", file!("components/install-nginx.yaml")),
    component("install-package-from-repository", file!("components/install-package-from-repository.yaml")),
    component("python-3-linux", file!("components/python-3-linux.yaml")),
    component("reboot-linux", file!("components/reboot-linux.yaml")),
    component("reboot-test-linux", file!("components/reboot-test-linux.yaml")),
    component("simple-boot-test-linux", file!("components/simple-boot-test-linux.yaml")),
    component("update-linux", file!("components/update-linux.yaml")),
    component(
        "validate-ssh-host-key-generation-linux",
        file!("components/validate-ssh-host-key-generation-linux.yaml"),
    ),
    component("yum-repository-test-linux", file!("components/yum-repository-test-linux.yaml")),
];

/// Base images by name.
pub static BASE_IMAGES: [(&str, &str); 8] = [
    ("almalinux-9", file!("base-images/almalinux-9.yaml")),
    ("amazon-linux-2023", file!("base-images/amazon-linux-2023.yaml")),
    ("debian-12", file!("base-images/debian-12.yaml")),
    ("debian-12-minimal", file!("base-images/debian-12-minimal.yaml")),
    ("debian-13", file!("base-images/debian-13.yaml")),
    ("fedora", file!("base-images/fedora.yaml")),
    ("ubuntu-22.04", file!("base-images/ubuntu-22.04.yaml")),
    ("ubuntu-24.04", file!("base-images/ubuntu-24.04.yaml")),
];

impl Component {
    /// Its document.
    pub fn source(&self) -> Arc<Source> {
        Source::new(format!("components/{}.yaml (shipped)", self.name), self.text)
    }
}

/// The newest shipped component of a name and version.
pub fn find_component(name: &str, version: VersionPattern) -> Option<&'static Component> {
    COMPONENTS.iter().find(|component| component.name == name && version.matches(component.version))
}

/// A shipped base image's description.
pub fn find_base_image(name: &str) -> Option<Arc<Source>> {
    let (name, text) = BASE_IMAGES.iter().find(|(known, _)| *known == name)?;
    Some(Source::new(format!("base-images/{name}.yaml (shipped)"), *text))
}

/// The table of what AWS calls parents.
pub fn aliases() -> Arc<Source> {
    Source::new("base-images/aliases.yaml (shipped)", file!("base-images/aliases.yaml"))
}
