#!/bin/sh
# Starts the driver: driver.sh VERSION [JAVA_HOME KERNEL_HOME [MEMINFO [spare]]]
#
# `spare` starts one that nobody waits for yet: it runs some cells before it says `ready`.
#
# A shell comes first for what a JVM cannot do: take a variable out of the environment that its
# children see, and plan for the sandbox, which is told of its memory and processors in
# /proc/meminfo and /proc/cpuinfo (the JVM asks the kernel, which tells it of the machine).
version=$1
java_home=${2:-/opt/java/$version}
kernel_home=${3:-/opt/crownest-java/$version}

control=$CROWNEST_KERNEL_FD
unset CROWNEST_KERNEL_FD

total_kib=1048576
while read -r name value _; do
  if [ "$name" = MemTotal: ]; then
    total_kib=$value
    break
  fi
done <"${4:-/proc/meminfo}"
# Beside the heap: 60 MiB of code, classes and stacks, and something for children.
heap_mib=$((total_kib / 1024 * 5 / 8 - 32))
[ "$heap_mib" -ge 48 ] || heap_mib=48
first_mib=32
[ "$heap_mib" -ge "$first_mib" ] || first_mib=$heap_mib

processors=$(grep -c ^processor /proc/cpuinfo) || processors=1

# The launcher of a template is a script that would look for the memory again.
java=$java_home/bin/java.real
[ -x "$java" ] || java=$java_home/bin/java

exec "$java" "-Xms${first_mib}m" "-Xmx${heap_mib}m" \
  "-XX:ActiveProcessorCount=$processors" "@$kernel_home/options" \
  -jar "$kernel_home/driver.jar" "$control" ${5:+"$5"}
