//! Running a program on a terminal of its own, for a person on the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use goldsmith_agent::message::{Exec, Exit, OpError, OpErrorKind, Size, Stream};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::exec::{Event, FOREVER, Flow, Started, pump, start, supervise};
use super::failed;
use crate::server::Shared;

/// What comes from the person.
pub(crate) enum Typed {
    /// Keys.
    Keys(Vec<u8>),
    /// Another size of the window.
    Resize(Size),
}

/// Runs a program to its end and sends what it writes.
pub(crate) fn run(shared: &Shared, id: u32, exec: Exec, size: Size, keys: Receiver<Typed>) -> Result<Exit, OpError> {
    let Some((program, arguments)) = exec.argv.split_first() else {
        return Err(OpError { kind: OpErrorKind::Other, message: "no program was named".to_owned() });
    };
    let (controller, terminal) = open(size).map_err(|error| failed("a terminal", &error))?;
    let keyboard = controller.try_clone().map_err(|error| failed("a terminal", &error))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(exec.env).current_dir(&exec.cwd);
    lead_session(&mut command, terminal).map_err(|error| failed("a terminal", &error))?;
    let Started { mut child, group, events, inbox } = start(shared, id, program, &mut command)?;
    // With it goes the last copy of the program's side that is ours: what is left closes with the program.
    drop(command);
    std::thread::spawn(move || type_keys(keyboard, &keys));
    let flow = Arc::new(Flow::default());
    pump(shared.clone(), id, Stream::Stdout, controller, (events.clone(), flow.clone()));
    std::thread::spawn(move || drop(events.send(Event::Ended(child.wait()))));
    let timeout = exec.timeout_ms.map_or(FOREVER, Duration::from_millis);
    let exit = supervise(&inbox, group, (1, &flow), Instant::now() + timeout);
    shared.unregister(id);
    exit.map_err(|error| failed(program, &error))
}

/// Both ends of a new terminal.
fn open(size: Size) -> io::Result<(File, File)> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let no_controlling_terminal = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(no_controlling_terminal);
    let terminal = options.open(std::ffi::OsStr::new(&*name.to_string_lossy()))?;
    let controller = File::from(controller);
    resize(&controller, size)?;
    Ok((controller, terminal))
}

fn resize(controller: &File, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(controller, size)?)
}

/// Has the program lead a session of its own, whose terminal this is: only then do Ctrl-C and job control work.
#[allow(unsafe_code)]
fn lead_session(command: &mut Command, terminal: File) -> io::Result<()> {
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    // SAFETY: between fork and exec only setsid(2) and ioctl(2) are called, both of which are async-signal-safe, and
    // nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        });
    }
    Ok(())
}

/// Passes on what is typed until the program has ended.
fn type_keys(mut controller: File, keys: &Receiver<Typed>) {
    for typed in keys {
        let done = match typed {
            Typed::Keys(data) => controller.write_all(&data),
            Typed::Resize(size) => resize(&controller, size),
        };
        if done.is_err() {
            return;
        }
    }
}
