//! Installing a seccomp filter.

use std::io;

/// One instruction of classic BPF, as the kernel wants it (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Puts the filter on the calling thread, for good. Needs `no_new_privs` or CAP_SYS_ADMIN.
///
/// # Errors
/// Those of seccomp(2); `EINVAL` when the kernel's checker refuses the program.
pub fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let prog = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: Instruction has the layout of sock_filter; the kernel copies `len` of them and does
    // not write to them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0u32,
            &raw const prog,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
