//! File requests in short form.

use super::{Client, Sandbox};
use crownest_init::link::{FILE_BYTES_MAX, FileStat, Request, Within};

pub(crate) fn start() -> Option<(Sandbox, Client)> {
    let sandbox = Sandbox::start("none")?;
    let mut client = sandbox.connect();
    client.hello();
    Some((sandbox, client))
}

pub(crate) fn read(path: &str) -> Request {
    Request::FileRead {
        path: path.into(),
        within: Within::Workspace,
        offset: 0,
        length: FILE_BYTES_MAX as u64,
    }
}

pub(crate) fn stat(path: &str) -> Request {
    Request::FileStat {
        path: path.into(),
        within: Within::Workspace,
        link: false,
    }
}

pub(crate) fn list(path: &str) -> Request {
    Request::FileList {
        path: path.into(),
        within: Within::Workspace,
        link: false,
    }
}

pub(crate) fn mkdir(path: &str, parents: bool) -> Request {
    Request::FileMkdir {
        path: path.into(),
        within: Within::Workspace,
        parents,
    }
}

pub(crate) fn rename(from: &str, to: &str, overwrite: bool) -> Request {
    Request::FileMove {
        from: from.into(),
        to: to.into(),
        within: Within::Workspace,
        overwrite,
        parents: false,
    }
}

pub(crate) fn remove(path: &str) -> Request {
    Request::FileRemove {
        path: path.into(),
        within: Within::Workspace,
    }
}

pub(crate) fn at_root(request: Request) -> Request {
    let within = Within::Root;
    match request {
        Request::FileRead {
            path,
            offset,
            length,
            ..
        } => Request::FileRead {
            path,
            within,
            offset,
            length,
        },
        Request::FileStat { path, link, .. } => Request::FileStat { path, within, link },
        Request::FileList { path, link, .. } => Request::FileList { path, within, link },
        Request::FileWrite {
            path,
            overwrite,
            parents,
            mode,
            ..
        } => Request::FileWrite {
            path,
            within,
            overwrite,
            parents,
            mode,
        },
        Request::FileRemove { path, .. } => Request::FileRemove { path, within },
        Request::FileMkdir { path, parents, .. } => Request::FileMkdir {
            path,
            within,
            parents,
        },
        other => other,
    }
}

pub(crate) fn with(request: Request, new_overwrite: bool, new_parents: bool) -> Request {
    let Request::FileWrite {
        path, within, mode, ..
    } = request
    else {
        panic!()
    };
    Request::FileWrite {
        path,
        within,
        overwrite: new_overwrite,
        parents: new_parents,
        mode,
    }
}

pub(crate) fn stat_of(client: &mut Client, request: Request) -> FileStat {
    client.call(request).unwrap().reply.stat.unwrap()
}
