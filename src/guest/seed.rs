//! The seed disk: what cloud-init reads at first boot, and the agent.
//!
//! A FAT volume labelled `CIDATA` is a NoCloud data source (cloud-init documentation, "NoCloud"). The agent lies beside
//! the documents; `bootcmd`, which cloud-init runs early at every boot, copies it to a tmpfs of its own and starts it
//! there. `/run` itself is mounted noexec in Debian.

use std::io;
use std::path::Path;

use fs_err::File;
use serde::Serialize;
use serde_yaml::Value;

use crate::disk::MIB;
use crate::disk::fat::Volume;

/// The agent for guests of this architecture; `build.rs` builds it.
pub(super) static AGENT: &[u8] = include_bytes!(env!("GOLDSMITH_AGENT_PATH"));

const AGENT_FILE: &str = "goldsmith-agent";

/// Runs as root at every boot. The label is upper case on our volume and may be shown in lower case.
const START_AGENT: &str = r#"
set -e
at=/run/goldsmith
mkdir -p $at
mount -t tmpfs -o mode=0700,size=16m tmpfs $at
device=$(blkid -L CIDATA || blkid -L cidata || findfs LABEL=CIDATA)
mkdir $at/seed
mount -o ro "$device" $at/seed
cp $at/seed/goldsmith-agent $at/agent
umount $at/seed
chmod 0700 $at/agent
modprobe -q virtio_console || true
chcon -t bin_t $at/agent 2>/dev/null || true
if [ -d /run/systemd/system ]; then
  exec systemd-run --quiet --no-block --unit=goldsmith-agent --property=DefaultDependencies=no --property=OOMScoreAdjust=-900 --property=Restart=on-failure $at/agent
fi
setsid $at/agent </dev/null >/dev/null 2>&1 &
"#;

/// What a seed is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A machine whose disk is sealed afterwards.
    Build,
    /// A first boot of a sealed disk, as anybody's would be.
    Test,
}

/// What cloud-init is told.
#[derive(Debug, Clone)]
pub struct Seed {
    /// cloud-init does its first-boot work once for each.
    pub instance_id: String,
    /// The guest's name.
    pub hostname: String,
    /// The user data.
    user_data: CloudConfig,
}

/// The part of cloud-config that is used here: cloud-init documentation, "Module reference".
#[derive(Debug, Clone, Default, Serialize)]
struct CloudConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bootcmd: Vec<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh_genkeytypes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chpasswd: Option<Value>,
}

impl Seed {
    /// A seed that starts the agent.
    pub fn with_agent(purpose: Purpose) -> Self {
        let mut user_data = CloudConfig {
            bootcmd: vec![["sh", "-c", START_AGENT.trim()].map(str::to_owned).into()],
            ..CloudConfig::default()
        };
        let hostname = match purpose {
            Purpose::Build => {
                // The keys are removed before the disk is sealed; an RSA key takes an emulated machine ten seconds.
                user_data.ssh_genkeytypes = vec!["ed25519"];
                "goldsmith-build"
            }
            Purpose::Test => "goldsmith-test",
        };
        Self { instance_id: instance_id(), hostname: hostname.to_owned(), user_data }
    }

    /// A seed for a person, who can log in as the image's default user with this password.
    pub fn for_person(hostname: &str, password: &str) -> Self {
        let keep = serde_yaml::Mapping::from_iter([("expire".into(), false.into())]);
        let user_data = CloudConfig {
            password: Some(password.to_owned()),
            chpasswd: Some(Value::Mapping(keep)),
            ..CloudConfig::default()
        };
        Self { instance_id: instance_id(), hostname: hostname.to_owned(), user_data }
    }

    /// What a guest that was started with such a seed has taken from it, its name apart.
    pub fn fingerprint(&self) -> io::Result<String> {
        let user_data = crate::host::file::sha256_of(self.user_data()?.as_bytes());
        Ok(format!("{user_data} {}", crate::host::file::sha256_of(AGENT)))
    }

    /// Writes the seed disk.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(4 * MIB)?;
        let volume = Volume::format(&mut file, "CIDATA", 0x4753_4D31)?;
        volume.write("meta-data", &mut self.meta_data()?.as_bytes())?;
        volume.write("user-data", &mut self.user_data()?.as_bytes())?;
        if !self.user_data.bootcmd.is_empty() {
            volume.write(AGENT_FILE, &mut &*AGENT)?;
        }
        volume.finish()
    }

    fn meta_data(&self) -> io::Result<String> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct MetaData<'a> {
            instance_id: &'a str,
            local_hostname: &'a str,
        }
        let data = MetaData { instance_id: &self.instance_id, local_hostname: &self.hostname };
        serde_yaml::to_string(&data).map_err(io::Error::other)
    }

    fn user_data(&self) -> io::Result<String> {
        let config = serde_yaml::to_string(&self.user_data).map_err(io::Error::other)?;
        Ok(format!("#cloud-config\n{config}"))
    }
}

fn instance_id() -> String {
    format!("goldsmith-{}", uuid::Uuid::new_v4())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn documents_are_what_cloud_init_expects() {
        let seed = Seed { instance_id: "goldsmith-1".to_owned(), ..Seed::with_agent(Purpose::Build) };
        insta::assert_snapshot!(seed.meta_data().unwrap(), @"
        instance-id: goldsmith-1
        local-hostname: goldsmith-build
        ");
        let user_data = seed.user_data().unwrap();
        assert!(user_data.starts_with("#cloud-config\nbootcmd:\n- - sh\n  - -c\n"), "{user_data}");
        let read: Value = serde_yaml::from_str(&user_data).unwrap();
        assert_eq!(read["bootcmd"][0][2].as_str().unwrap(), START_AGENT.trim());
        insta::assert_snapshot!(Seed::for_person("nginx", "s3cret").user_data().unwrap(), @"
        #cloud-config
        password: s3cret
        chpasswd:
          expire: false
        ");
    }

    #[test]
    fn two_seeds_are_two_instances() {
        let id = |purpose| Seed::with_agent(purpose).instance_id;
        assert_ne!(id(Purpose::Test), id(Purpose::Test));
    }

    #[test]
    fn the_start_script_is_valid_shell() {
        let status = Command::new("sh").args(["-n", "-c", START_AGENT]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn the_volume_holds_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed.img");
        Seed::with_agent(Purpose::Test).write(&path).unwrap();
        let bytes = fs_err::read(&path).unwrap();
        assert!(memchr::memmem::find(&bytes, &AGENT[..4096]).is_some());
        assert!(memchr::memmem::find(&bytes, b"CIDATA     ").is_some());
    }
}
