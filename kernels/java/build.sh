#!/bin/sh
# Builds what the Java kernel needs once per template: build.sh JAVA_HOME OUTPUT
#
# OUTPUT gets driver.jar, the classes that cells compile against (api/), the jars of Maven's
# resolution (resolver/) and of JNA (jna/), the archive of loaded classes and `options`, the
# arguments of the JVM. Run it with the paths that the sandbox will see: the archive holds for one
# build of the JDK and one path of the jar. The network is asked for the files of dependencies.txt
# alone; HTTPS_PROXY, SSL_CERT_FILE and MAVEN_MIRROR_URL are honoured.
set -eu

java_home=${1:?JAVA_HOME} out=${2:?OUTPUT}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$("$java_home/bin/java" -XshowSettings:properties -version 2>&1 |
  sed -n 's/^ *java.specification.version = //p')
[ "$version" -ge 17 ] || { echo "Java $version: 17 is the oldest that works" >&2; exit 1; }

quietly() { # what it says is of interest when it fails
  "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

compile() { # directory-of-sources directory-of-classes [option…]
  sources=$1 classes=$2
  shift 2
  # Concatenation without invokedynamic: its call sites are linked anew in every process.
  find "$sources" -name '*.java' >"$work/sources"
  quietly "$java_home/bin/javac" --release 17 -XDstringConcat=inline -parameters \
    -Xlint:all,-removal,-serial,-options,-processing "$@" -d "$classes" "@$work/sources"
}

# === classes and jars ===
compile "$here/src" "$work/driver"
rm -rf "$out/api"
mkdir -p "$out/api/crownest"
cp -r "$work/driver/crownest/api" "$out/api/crownest/"

providers=$("$java_home/bin/java" "$here/tools/Providers.java")
echo "security.provider.$((providers + 1))=crownest.kernel.PemProvider" >"$out/security.properties"

cat >"$work/manifest" <<END
Main-Class: crownest.kernel.Driver
Add-Opens: java.base/java.io java.base/java.lang java.base/sun.nio.ch java.base/sun.nio.fs
  jdk.jshell/jdk.jshell
Enable-Native-Access: ALL-UNNAMED
END
"$java_home/bin/jar" --create --file "$out/driver.jar" --manifest "$work/manifest" -C "$work/driver" .

"$java_home/bin/java" "$here/tools/Fetch.java" "$here/dependencies.txt" "$out"
compile "$here/resolver" "$work/resolver" -cp "$out/resolver/*"
"$java_home/bin/jar" --create --file "$out/resolver/crownest-resolver.jar" -C "$work/resolver" .
(
  cd "$work"
  "$java_home/bin/jar" xf "$out"/jna/jna-*.jar "com/sun/jna/linux-$(uname -m | tr _ -)/libjnidispatch.so"
  cp "com/sun/jna/linux-$(uname -m | tr _ -)/libjnidispatch.so" "$out/jna/"
)

# === the arguments of the JVM ===
# C1 alone and the serial collector: half the memory, and a snippet is compiled once and run once.
# The young generation starts small, since every page of it is touched before the first collection.
options() { # what goes with the archive
  cat <<END
-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-XX:-UsePerfData
-XX:NewSize=12m
-XX:MinHeapFreeRatio=20
-XX:MaxHeapFreeRatio=40
-XX:ErrorFile=/tmp/hs_err_pid%p.log
-XX:-CreateCoredumpOnCrash
-Xlog:disable
-Dfile.encoding=UTF-8
-Djava.awt.headless=true
-Djava.security.manager=disallow
-Djava.security.properties=$out/security.properties
-Dcrownest.home=$out
END
  printf '%s\n' "$@"
}

# === the archive ===
train() {
  options "$@" >"$work/training"
  rm -f "$out/driver.jsa" "$out/driver.aot"
  quietly "$java_home/bin/java" -Xms64m "@$work/training" -jar "$out/driver.jar" train
}
if [ "$version" -ge 25 ]; then
  train "-XX:AOTCacheOutput=$out/driver.aot"
  archive=$out/driver.aot
  options "-XX:AOTCache=$archive" >"$out/options"
else
  train -Xshare:off "-XX:DumpLoadedClassList=$work/classes"
  archive=$out/driver.jsa
  options "-XX:SharedClassListFile=$work/classes" "-XX:SharedArchiveFile=$archive" >"$work/dump"
  quietly "$java_home/bin/java" -Xshare:dump "@$work/dump" -jar "$out/driver.jar"
  options -Xshare:auto "-XX:SharedArchiveFile=$archive" >"$out/options"
fi
[ -s "$archive" ] || { cat "$work/log" >&2; echo "no archive was made" >&2; exit 1; }
chmod -R a+rX "$out"
du -sh "$out"
