//! Finding and opening the virtio-serial port.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to load its driver and show the port.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent's port, opened. udev's names are not relied on: a guest without udev has the port all the same.
pub(crate) fn open() -> io::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match find(Path::new("/sys/class/virtio-ports"))? {
            Some(device) => return OpenOptions::new().read(true).write(true).open(device),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("this machine has no virtio-serial port named {}", goldsmith_agent::PORT_NAME),
                ));
            }
        }
    }
}

/// The socket that the agent was started with as its standard input.
pub(crate) fn socket() -> io::Result<File> {
    Ok(File::from(std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?))
}

fn find(class: &Path) -> io::Result<Option<PathBuf>> {
    let ports = match std::fs::read_dir(class) {
        Ok(ports) => ports,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for port in ports {
        let port = port?;
        let name = std::fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == goldsmith_agent::PORT_NAME {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}
