"""What happens around imports: matplotlib and IPython get configured as they are loaded, and
packages installed while the context lives are found.

Nothing here costs anything until an import of such a module, or a failing one.
"""

import importlib
import importlib.abc
import importlib.machinery
import os
import sys

from . import figures, inputs, interactive, shell

_callbacks = {}


def install(kernel):
    """Registers the hooks. Called once, before any cell."""
    _callbacks["matplotlib"] = figures.configure
    _callbacks["matplotlib.axes"] = figures.remember_plots
    _callbacks["plotly.io._renderers"] = interactive.configure_plotly
    _callbacks["altair"] = interactive.configure_altair
    _callbacks["bokeh.io"] = interactive.configure_bokeh
    _callbacks["getpass"] = lambda _module: inputs.patch_getpass()
    _callbacks["IPython.core.interactiveshell"] = lambda _module: shell.install(kernel)
    for name in list(_callbacks):
        if name in sys.modules:
            _callbacks.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())
    sys.meta_path.append(_late_packages)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a callback right after the named modules have been executed."""

    def find_spec(self, name, path=None, target=None):
        if name not in _callbacks:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, name)
        return spec


class _Loader(importlib.abc.Loader):
    """Taken off the list as the module is executed: many a program only looks for a module."""

    def __init__(self, loader, name):
        self._loader = loader
        self._name = name

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        callback = _callbacks.pop(self._name, None)
        try:
            if callback is not None:
                callback(module)
        except Exception as error:
            # Another version of the library: it works, and is shown as it shows itself.
            sys.stderr.write("%s could not be set up for this context: %s\n" % (self._name, error))

    def __getattr__(self, name):
        return getattr(self._loader, name)


class _LatePackages(importlib.abc.MetaPathFinder):
    """Last finder: reached only by an import that has failed. If a site directory has changed
    since the last time, for instance because a cell ran pip, it looks again."""

    def __init__(self):
        self._user_site = None
        self._seen = {}

    def watch(self, user_site):
        self._user_site = user_site

    def find_spec(self, name, path=None, target=None):
        if path is not None or not self._changed():
            return None
        if self._user_site and self._user_site not in sys.path:
            if os.path.isdir(self._user_site):
                _add_user_site(self._user_site)
        for entry, finder in list(sys.path_importer_cache.items()):
            if finder is None:
                sys.path_importer_cache.pop(entry, None)
            elif hasattr(finder, "invalidate_caches"):
                finder.invalidate_caches()
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    def _changed(self):
        directories = [d for d in sys.path if d.endswith(("site-packages", "dist-packages"))]
        if self._user_site and self._user_site not in directories:
            directories.append(self._user_site)
        now = {}
        for directory in directories:
            try:
                now[directory] = os.stat(directory).st_mtime_ns
            except OSError:
                pass
        changed = any(self._seen.get(d) != at for d, at in now.items())
        self._seen = now
        return changed


_late_packages = _LatePackages()


def watch_user_site():
    """`pip install` without root goes to the user's own site directory, which Python leaves out
    of sys.path when it does not exist at its start. Called when HOME is known."""
    if sys.prefix != sys.base_prefix or sys.flags.no_user_site:
        return
    base = os.environ.get("PYTHONUSERBASE")
    if not base:
        home = os.environ.get("HOME")
        if not home or not os.path.isabs(home):
            return
        base = os.path.join(home, ".local")
    version = "python%d.%d" % sys.version_info[:2]
    user_site = os.path.join(base, "lib", version, "site-packages")
    site = sys.modules.get("site")
    if site is not None:
        site.USER_BASE, site.USER_SITE, site.ENABLE_USER_SITE = base, user_site, True
    _late_packages.watch(user_site)
    if user_site not in sys.path and os.path.isdir(user_site):
        _add_user_site(user_site)


def _add_user_site(user_site):
    """Ahead of the system's packages, where site.py would have put it."""
    for index, entry in enumerate(sys.path):
        if entry.endswith(("site-packages", "dist-packages")):
            sys.path.insert(index, user_site)
            return
    sys.path.append(user_site)
