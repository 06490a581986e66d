//! The directory that this driver shares with its shell: the cell that is to be run, answers, and
//! the pipes of `input`. It lies where the least is written by others, and is made again when
//! tenant code has removed it or filled the file system below it.

use crate::lines::KEEP_SCRIPT;
use crate::quoting::single;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest answer that is read; a state above it is not kept.
pub(crate) const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Random part of the directory's name.
const NAME_BYTES: usize = 6;

/// One private directory.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    cell: File,
    /// Directories to try, this one's first.
    candidates: Vec<PathBuf>,
}

impl Place {
    /// Below the first of the candidates that takes it.
    pub(crate) fn make(home: Option<&str>, run_dir: Option<&str>) -> io::Result<Self> {
        let candidates: Vec<PathBuf> = run_dir
            .into_iter()
            .chain(["/dev/shm", "/tmp"])
            .chain(home)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.to_str().is_some())
            .collect();
        Self::make_in(candidates)
    }

    fn make_in(candidates: Vec<PathBuf>) -> io::Result<Self> {
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for index in 0..candidates.len() {
            match build(&candidates[index]) {
                Ok((directory, cell)) => {
                    let mut candidates = candidates;
                    candidates.rotate_left(index);
                    return Ok(Self {
                        directory,
                        cell,
                        candidates,
                    });
                }
                Err(why) => error = why,
            }
        }
        Err(error)
    }

    /// A new directory in place of this one; `elsewhere`: not below the same one, if possible.
    pub(crate) fn renew(&mut self, elsewhere: bool) -> io::Result<()> {
        let mut candidates = self.candidates.clone();
        if elsewhere {
            candidates.rotate_left(1);
        }
        let next = Self::make_in(candidates)?;
        // Drop removes what is left of the old one.
        *self = next;
        Ok(())
    }

    /// Whether the files are still where the shell looks for them.
    pub(crate) fn is_intact(&self) -> bool {
        let same = |found: fs::Metadata| {
            self.cell
                .metadata()
                .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
        };
        fs::symlink_metadata(self.directory.join("cell")).is_ok_and(same)
            && self.directory.join("keep").exists()
    }

    /// A path as text: candidates that are no text were left out.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    pub(crate) fn cell_path(&self) -> String {
        self.path("cell")
    }

    pub(crate) fn keep_path(&self) -> String {
        self.path("keep")
    }

    pub(crate) fn leaving_path(&self) -> String {
        self.path("leaving")
    }

    pub(crate) fn write_cell(&self, text: &str) -> io::Result<()> {
        self.cell.set_len(0)?;
        self.cell.write_all_at(text.as_bytes(), 0)
    }

    /// Writes a file that the cell runs, and gives the command that runs it.
    pub(crate) fn write_script(&self, code: &str) -> io::Result<String> {
        let path = self.path("script");
        fs::write(&path, code)?;
        Ok(format!("\\builtin . {}", single(&path)))
    }

    /// Reads an answer and removes it. A longer one than [`ANSWER_BYTES_MAX`] is cut.
    pub(crate) fn take(&self, path: &str) -> io::Result<Vec<u8>> {
        // Tenant code may have put a pipe there: opening must not wait.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking())
            .open(path)?;
        // What else is there may never end.
        let is_file = file.metadata()?.is_file();
        let _ = fs::remove_file(path);
        if !is_file {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A named pipe, open at both ends so that neither side waits for the other.
    pub(crate) fn pipe(&self, name: &str) -> io::Result<(File, String)> {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking())
            .open(&path)?;
        Ok((file, path))
    }

    /// An empty file: what a cell with input reads, unless it asks.
    pub(crate) fn empty_stdin(&self) -> io::Result<String> {
        let path = self.path("stdin");
        let _ = fs::remove_file(&path);
        create(Path::new(&path))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn nonblocking() -> i32 {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    i32::try_from(flags.bits()).unwrap_or_default()
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn build(parent: &Path) -> io::Result<(PathBuf, File)> {
    let mut random = [0_u8; NAME_BYTES];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let path = parent.join(format!(".crownest-bash-{}", hexadecimal(&random)));
    DirBuilder::new().mode(0o700).create(&path)?;
    let fill = || {
        fs::write(path.join("keep"), KEEP_SCRIPT)?;
        create(&path.join("cell"))
    };
    match fill() {
        Ok(cell) => Ok((path, cell)),
        Err(error) => {
            let _ = fs::remove_dir_all(&path);
            Err(error)
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_can_be_written_is_taken() {
        let base = std::env::temp_dir();
        let candidates = vec![PathBuf::from("/proc/self"), base.clone()];
        let place = Place::make_in(candidates).unwrap();
        assert_eq!(place.directory.parent(), Some(base.as_path()));
        assert!(place.is_intact());
        let path = place.directory.clone();
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn a_removed_directory_is_noticed_and_made_again() {
        let mut place = Place::make_in(vec![std::env::temp_dir()]).unwrap();
        fs::remove_dir_all(&place.directory).unwrap();
        assert!(!place.is_intact());
        place.renew(true).unwrap();
        assert!(place.is_intact());
        place.write_cell("echo").unwrap();
        place.write_cell("x").unwrap();
        assert_eq!(fs::read(place.cell_path()).unwrap(), b"x");
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let place = Place::make_in(vec![std::env::temp_dir()]).unwrap();
        let (_pipe, path) = place.pipe("answer.1").unwrap();
        assert_eq!(
            place.take(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            place.take(&path).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn an_answer_is_read_once_and_bounded() {
        let place = Place::make_in(vec![std::env::temp_dir()]).unwrap();
        let path = place.path("answer.3");
        let file = File::create(&path).unwrap();
        file.set_len(ANSWER_BYTES_MAX + 10).unwrap();
        assert_eq!(place.take(&path).unwrap().len() as u64, ANSWER_BYTES_MAX);
        assert!(!Path::new(&path).exists());
    }
}
