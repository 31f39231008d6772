//! Running goldsmith.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Place, host, shared};

/// A goldsmith to be started.
#[must_use]
#[derive(Debug)]
pub(crate) struct Goldsmith {
    command: Command,
    home: std::path::PathBuf,
}

impl Goldsmith {
    pub(super) fn new(place: &Place, arguments: &[&str]) -> Self {
        Self::behind(place, &[], arguments)
    }

    /// Goldsmith as whoever runs the tests, root included.
    pub(crate) fn as_oneself(place: &Place, arguments: &[&str]) -> Self {
        let mut command = Command::new(shared().program());
        command.args(arguments);
        Self::prepare(command, place)
    }

    /// Goldsmith behind another program, which starts `"$@"` as the same user.
    pub(crate) fn behind(place: &Place, words: &[&str], arguments: &[&str]) -> Self {
        let program = shared().program();
        let program = program.to_string_lossy();
        let user = shared().user.map(|user| ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]);
        // Whoever runs the tests may have some signals ignored, as scripts have of what they start in the background.
        let all = ["env", "--default-signal"].into_iter().chain(user.iter().flatten().copied());
        let mut all = all.chain(words.iter().copied()).chain([&*program]).chain(arguments.iter().copied());
        let mut command = Command::new(all.next().unwrap_or_default());
        command.args(all);
        Self::prepare(command, place)
    }

    fn prepare(mut command: Command, place: &Place) -> Self {
        command.current_dir(place.path("")).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", place.path("")).env("GOLDSMITH_HOME", place.home()).env("NO_COLOR", "1");
        command.env("GOLDSMITH_LAYER_BUDGET", "8GiB");
        // A proxy that the host needs, goldsmith needs as well.
        for name in ["http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Self { command, home: place.home().to_owned() }
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it something to read.
    pub(crate) fn typing(mut self, text: &str) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        self.command.stdin(file);
        self
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Running {
        let shown = format!("{:?}", self.command);
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = reader(child.stdout.take().unwrap());
        let stderr = reader(child.stderr.take().unwrap());
        Running { child, stdout, stderr, shown, home: self.home, started: Instant::now() }
    }

    /// Runs it to its end.
    #[must_use]
    pub(crate) fn run(self) -> Finished {
        self.start().wait()
    }
}

type Text = std::sync::Arc<std::sync::Mutex<String>>;

fn reader(mut pipe: impl Read + Send + 'static) -> (Text, JoinHandle<()>) {
    let text = Text::default();
    let shared = text.clone();
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    });
    (text, thread)
}

/// A goldsmith that runs. Dropped, it is killed.
#[must_use]
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: (Text, JoinHandle<()>),
    stderr: (Text, JoinHandle<()>),
    shown: String,
    home: std::path::PathBuf,
    started: Instant,
}

impl Running {
    /// Its process id, by which its machines are found.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a text stands in what it has printed to standard error.
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_until(&format!("`{text}` is printed"), || self.stderr.0.lock().unwrap().contains(text));
    }

    /// Waits until something is so.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !is_so() {
            assert!(Instant::now() < deadline, "waited for long until {what}:\n{}", self.stderr.0.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    #[must_use]
    pub(crate) fn wait(mut self) -> Finished {
        let status = self.child.wait().unwrap();
        let take = |(text, thread): &mut (Text, JoinHandle<()>)| {
            let done = std::mem::replace(thread, std::thread::spawn(|| {}));
            done.join().unwrap();
            text.lock().unwrap().clone()
        };
        let stdout = take(&mut self.stdout);
        let stderr = take(&mut self.stderr);
        Finished {
            id: self.child.id(),
            code: status.code(),
            stdout,
            stderr,
            shown: self.shown.clone(),
            home: self.home.clone(),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A goldsmith that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    id: u32,
    code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    shown: String,
    home: std::path::PathBuf,
    pub(crate) seconds: f64,
}

impl Finished {
    /// Its exit code, if it was not killed.
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    /// It ended well.
    pub(crate) fn success(self) -> Self {
        self.ended(Some(0))
    }

    /// It failed with this exit code.
    pub(crate) fn fails(self, code: i32) -> Self {
        self.ended(Some(code))
    }

    /// It was killed by a signal.
    pub(crate) fn killed(self) -> Self {
        assert_eq!(self.code, None, "{self}");
        self
    }

    /// However it ended, it must have left neither a machine nor a working folder.
    fn ended(self, code: Option<i32>) -> Self {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(host::machines_of(self.id), Vec::<i32>::new(), "a machine is left: {self}");
        assert_eq!(self.runs(), Vec::<String>::new(), "a working folder is left: {self}");
        self
    }

    /// Its process id, when it had one.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Working folders of this process.
    pub(crate) fn runs(&self) -> Vec<String> {
        let names = host::names_in(&self.home.join("runs"));
        names.into_iter().filter(|name| name.contains(&format!("-{}-", self.id))).collect()
    }

    /// A text stands in what it printed to standard error.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not in what it says: {self}");
        self
    }

    /// Its result with `--json`.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// What it said as an error, without what changes from run to run.
    pub(crate) fn error(&self, place: &Place) -> String {
        let start = self.stderr.find("error:").unwrap_or(0);
        let place = place.path("");
        let place = place.to_string_lossy();
        self.stderr[start..]
            .replace(&*place, "PLACE/")
            .replace(&*self.home.to_string_lossy(), "HOME")
            .trim_end()
            .to_owned()
    }

    /// A file in an image's folder.
    pub(crate) fn image_file(&self, image: &str, name: &str) -> std::path::PathBuf {
        self.home.join("images").join(image).join(name)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        writeln!(f, "{} ended with {code} after {:.1} s", self.shown, self.seconds)?;
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> String {
    fs_err::read_to_string(path).unwrap()
}
