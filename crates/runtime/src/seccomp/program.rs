//! Laying out the BPF program: architecture, then a search tree over call numbers, then the
//! conditions of the calls that have some.

use super::policy::{Condition, Policy, Verdict};
use crate::sys::Instruction;

// linux/bpf_common.h, linux/seccomp.h, linux/audit.h
const LD_ABS_WORD: u16 = 0x20;
const AND_K: u16 = 0x54;
const JUMP: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Offsets in struct seccomp_data.
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGUMENTS: u32 = 16;
/// Numbers from here up are the x32 calls: another way into the same kernel, never wanted.
const X32_FIRST: u32 = 0x4000_0000;

fn instruction(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn ret(k: u32) -> Instruction {
    instruction(RET_K, k)
}

fn errno(number: u32) -> Instruction {
    ret(RET_ERRNO | (number & 0xffff))
}

/// Compiles a policy.
#[must_use]
pub fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LD_ABS_WORD, DATA_ARCH),
        Instruction {
            code: JEQ_K,
            jt: 1,
            jf: 0,
            k: AUDIT_ARCH_X86_64,
        },
        ret(RET_KILL_PROCESS),
        instruction(LD_ABS_WORD, DATA_NUMBER),
    ];
    program.extend(search(&ranges(policy)));
    program
}

/// First number of each run of numbers with the same verdict.
fn ranges(policy: &Policy) -> Vec<(u32, Verdict)> {
    let last = policy.verdicts.keys().next_back().copied().unwrap_or(0);
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for number in (0..=last + 1).chain([X32_FIRST]) {
        let verdict = policy.verdict(number);
        if ranges
            .last()
            .is_none_or(|(_, previous)| *previous != verdict)
        {
            ranges.push((number, verdict));
        }
    }
    ranges
}

/// A tree that ends in the verdict of the loaded number.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return verdict_code(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let split = high[0].0;
    let low = search(low);
    let high = search(high);
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(skip) => code.push(Instruction {
            code: JGE_K,
            jt: skip,
            jf: 0,
            k: split,
        }),
        Err(_) => {
            // The conditional jump reaches 255 instructions; the plain one reaches them all.
            code.push(Instruction {
                code: JGE_K,
                jt: 0,
                jf: 1,
                k: split,
            });
            code.push(instruction(
                JUMP,
                u32::try_from(low.len()).expect("a filter is short"),
            ));
        }
    }
    code.extend(low);
    code.extend(high);
    code
}

fn verdict_code(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![ret(RET_ALLOW)],
        Verdict::Errno(number) => vec![errno(*number)],
        Verdict::Check(lines) => {
            let nosys = errno(libc::ENOSYS.unsigned_abs());
            let first = lines
                .nosys_if
                .iter()
                .flat_map(|line| line_code(line, nosys));
            let then = lines
                .any_of
                .iter()
                .flat_map(|line| line_code(line, ret(RET_ALLOW)));
            let last = errno(libc::EPERM.unsigned_abs());
            first.chain(then).chain([last]).collect()
        }
    }
}

/// Falls out at its end when a condition fails, else ends with `verdict`.
fn line_code(line: &[Condition], verdict: Instruction) -> Vec<Instruction> {
    let mut code = vec![verdict];
    for condition in line.iter().rev() {
        let rest = u8::try_from(code.len()).expect("a line of conditions is short");
        let mut block = vec![instruction(
            LD_ABS_WORD,
            DATA_ARGUMENTS + 8 * condition.argument,
        )];
        if condition.mask != u32::MAX {
            block.push(instruction(AND_K, condition.mask));
        }
        let values = u8::try_from(condition.values.len()).expect("a condition has few values");
        for (index, value) in (1u8..).zip(&condition.values) {
            let others = values - index;
            // On a match: over the other comparisons to the rest, or (not) over the rest as well.
            let on_match = if condition.not { others + rest } else { others };
            let last_miss = if others == 0 && !condition.not {
                rest
            } else {
                0
            };
            block.push(Instruction {
                code: JEQ_K,
                jt: on_match,
                jf: last_miss,
                k: *value,
            });
        }
        block.extend(code);
        code = block;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::super::{SANDBOX_POLICY, sandbox_filter};
    use super::*;

    /// Runs the program as the kernel would.
    fn run(program: &[Instruction], number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let i = program[at];
            at += 1;
            match i.code {
                LD_ABS_WORD => {
                    a = match i.k {
                        DATA_NUMBER => number,
                        DATA_ARCH => AUDIT_ARCH_X86_64,
                        k => arguments[(k - DATA_ARGUMENTS) as usize / 8],
                    }
                }
                AND_K => a &= i.k,
                JUMP => at += i.k as usize,
                JEQ_K => at += usize::from(if a == i.k { i.jt } else { i.jf }),
                JGE_K => at += usize::from(if a >= i.k { i.jt } else { i.jf }),
                RET_K => return i.k,
                other => panic!("unexpected instruction {other:#x}"),
            }
        }
    }

    const EPERM: u32 = RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;

    fn nr(number: libc::c_long) -> u32 {
        u32::try_from(number).unwrap()
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_policy() {
        let policy = Policy::parse(SANDBOX_POLICY).unwrap();
        let program = compile(&policy);
        for number in (0..600).chain([X32_FIRST, X32_FIRST + 1, u32::MAX]) {
            let want = match policy.verdict(number) {
                Verdict::Allow => RET_ALLOW,
                Verdict::Errno(n) => RET_ERRNO | n,
                Verdict::Check(_) => continue,
            };
            assert_eq!(run(&program, number, [0; 6]), want, "call {number}");
        }
    }

    #[test]
    fn arguments_decide() {
        let program = sandbox_filter();
        let check = |call, arguments, want| {
            assert_eq!(
                run(&program, nr(call), arguments),
                want,
                "{call} {arguments:?}"
            );
        };
        let newuser = libc::CLONE_NEWUSER.cast_unsigned();
        check(libc::SYS_clone, [17, 0, 0, 0, 0, 0], RET_ALLOW);
        check(libc::SYS_clone, [17 | newuser, 0, 0, 0, 0, 0], EPERM);
        check(libc::SYS_clone3, [0; 6], ENOSYS);
        check(libc::SYS_socket, [1, 5, 0, 0, 0, 0], RET_ALLOW);
        check(libc::SYS_socket, [2, 1 | 0x80000, 6, 0, 0, 0], RET_ALLOW);
        check(libc::SYS_socket, [2, 3, 1, 0, 0, 0], EPERM);
        check(libc::SYS_socket, [10, 5, 132, 0, 0, 0], EPERM);
        // Netlink replies count towards nobody's memory.
        check(libc::SYS_socket, [16, 3, 0, 0, 0, 0], ENOSYS);
        check(libc::SYS_socket, [16, 3, 9, 0, 0, 0], ENOSYS);
        check(libc::SYS_setsockopt, [3, 1, 2, 0, 4, 0], RET_ALLOW);
        check(libc::SYS_setsockopt, [3, 41, 26, 0, 4, 0], RET_ALLOW);
        for (level, name) in [(1, 26), (1, 50), (1, 51), (1, 52), (6, 31), (17, 100)] {
            check(libc::SYS_setsockopt, [3, level, name, 0, 4, 0], EPERM);
        }
        check(libc::SYS_mmap, [0, 4096, 3, 0x22, 0, 0], RET_ALLOW);
        check(libc::SYS_mmap, [0, 4096, 3, 0x4_0022, 0, 0], EPERM);
        check(libc::SYS_seccomp, [1, 0, 0, 0, 0, 0], EPERM);
        check(libc::SYS_prctl, [22, 2, 0, 0, 0, 0], EPERM);
        check(libc::SYS_fcntl, [3, 1024, 1, 0, 0, 0], EPERM);
        check(libc::SYS_socket, [40, 1, 0, 0, 0, 0], EPERM);
        check(libc::SYS_socket, [38, 5, 0, 0, 0, 0], EPERM);
        check(libc::SYS_socketpair, [1, 1, 0, 0, 0, 0], RET_ALLOW);
        check(libc::SYS_socketpair, [16, 3, 0, 0, 0, 0], EPERM);
        check(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0], RET_ALLOW);
        check(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0], EPERM);
        check(libc::SYS_ioctl, [0, 0x541c, 0, 0, 0, 0], EPERM);
        check(libc::SYS_personality, [0x40000, 0, 0, 0, 0, 0], RET_ALLOW);
        check(libc::SYS_personality, [8, 0, 0, 0, 0, 0], EPERM);
    }

    #[test]
    fn the_server_starts_nothing() {
        let program = super::super::server_filter();
        assert_eq!(run(&program, nr(libc::SYS_execve), [0; 6]), EPERM);
        assert_eq!(
            run(&program, nr(libc::SYS_clone), [0x0001_0000, 0, 0, 0, 0, 0]),
            RET_ALLOW
        );
        assert_eq!(run(&program, nr(libc::SYS_clone3), [0; 6]), ENOSYS);
        assert_eq!(run(&program, nr(libc::SYS_read), [0; 6]), RET_ALLOW);
        assert_eq!(run(&program, 9_999, [0; 6]), RET_ALLOW);
    }

    #[test]
    fn another_architecture_is_killed() {
        let program = sandbox_filter();
        assert_eq!(
            program[1],
            Instruction {
                code: JEQ_K,
                jt: 1,
                jf: 0,
                k: AUDIT_ARCH_X86_64
            }
        );
        assert_eq!(program[2], ret(RET_KILL_PROCESS));
    }

    #[test]
    fn the_program_stays_short() {
        // Install time grows with it: see the module's head.
        assert!(
            sandbox_filter().len() <= 300,
            "{} instructions",
            sandbox_filter().len()
        );
    }

    #[test]
    fn bad_policies_are_refused() {
        use super::super::policy::PolicyError;
        let parse = |allow: &str| {
            Policy::parse(&format!(
                "otherwise = 'nosys'\ndeny = []\ncheck = []\n{allow}"
            ))
        };
        let group = |reason: &str, calls: &str| {
            parse(&format!(
                "[[allow]]\nreason = '{reason}'\ncalls = [{calls}]"
            ))
        };
        assert!(group("x", "'read'").is_ok());
        assert!(matches!(
            group("x", "'read','read'"),
            Err(PolicyError::NamedTwice(_))
        ));
        assert!(matches!(
            group("x", "'raed'"),
            Err(PolicyError::UnknownCall(_))
        ));
        assert!(matches!(group(" ", "'read'"), Err(PolicyError::NoReason)));
        assert!(matches!(parse("surprise = 1"), Err(PolicyError::Read(_))));
    }
}
