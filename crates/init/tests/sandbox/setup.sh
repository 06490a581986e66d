# Runs as root of a new user namespace with its own pid, mount, network and IPC namespaces, and
# does by hand what the spawner does: an otherwise empty root, then init with its own uid and
# three capabilities. stdin: the go-ahead; stdout: the listening socket; arguments: an empty
# directory, the program.
set -eu
if [ "$(id -u)" != 0 ]; then
  # Before the ids are mapped: this process is nobody, with the capabilities of a new namespace.
  exec 3>&1 1>&2
  echo ready
  read -r _go
  exec setpriv --reuid=0 --regid=0 --clear-groups bash "$0" "$@" </dev/null
fi
root=$1
program=$2
mount -t tmpfs -o mode=755,size=128m tmpfs "$root"
cd "$root"
mkdir usr proc dev tmp workspace etc home home/user old
mount --rbind /usr usr
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
mount -t proc -o nosuid,nodev,noexec proc proc
for name in null zero full random urandom tty; do
  : > "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,max=8 devpts dev/pts
ln -s pts/ptmx dev/ptmx
printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/bash\n' > etc/passwd
printf 'secret\n' > etc/shadow
chmod 600 etc/shadow
chmod 1777 tmp
chown 1000:1000 workspace home/user
cp "$program" init
ip link set lo up
hostname sandbox
pivot_root . old
cd /
umount -l old
rmdir old
caps=-all,+setuid,+setgid,+kill
export PATH=/usr/sbin:/usr/bin
# An fd that the start contract does not promise: init has to close it.
exec 9</etc/passwd
exec env -i CROWNEST_INIT_NETWORK="$CROWNEST_INIT_NETWORK" /usr/bin/setpriv \
  --reuid=998 --regid=998 --clear-groups --no-new-privs \
  --inh-caps="$caps" --ambient-caps="$caps" --bounding-set="$caps" /init
