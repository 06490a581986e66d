"""The names that occur most often in the code of the standard library, numpy, pandas, matplotlib.

A name that is looked up is counted as in use for that moment, which in a zygote's child copies the
page that it lies on. A zygote makes these first, side by side on a few pages, and the imports find
them there. One that is missing, or of no use any more, costs a page and nothing else.
"""

import sys

_FREQUENT = """
    ABCSeries AbstractMethodError Any AttributeError BaseGrouper Bbox Callable CategoricalDtype
    Collection DataFrame DatetimeTZDtype DeprecationWarning Exception ExtensionArray
    ExtensionDtype ImportError Index IndexError KeyError MultiIndex NotImplemented
    NotImplementedError OSError Path RuntimeError SOL_SOCKET Series T TYPE_CHECKING TypeError
    ValueError __all__ __annotations__ __array__ __call__ __class__ __classcell__ __dict__
    __doc__ __eq__ __finalize__ __future__ __getitem__ __init__ __module__ __name__ __new__
    __qualname__ __repr__ __slots__ __str__ _api _block _cache _constructor _data _hasna _id
    _loop _mask _mgr _name _ndarray _pa_array _path _reduce _simple_new _str_equal _typ _values
    _y abc abs add all annotations any append arange args array asanyarray asarray astype axes
    axis body bool bytes callable canvas cast categories cbook chunks classmethod clear close
    closed codes collections collections.abc columns com compile concatenate config copy count
    data datetime decode dict draw dtype dumps empty encode encoding endswith enumerate env
    error extend find_stack_level flags float float64 format fromiter full func functools get
    get_figure getattr hasattr height id import_optional_dependency index info insert inspect
    int int64 io is_integer is_list_like is_scalar isinstance isna issubclass item items
    itemsize iter itertools join keys keywords kind left len levels lib list lower ma map mask
    match math max min mode modules mpl name names nan nansum ndarray ndim next no_default np
    numpy nv obj object op open operator os pa pandas pandas._libs pandas._typing
    pandas.core.dtypes.common pandas_dtype partial path pc platform pop print property range
    ravel rcParams re read refs remove replace repr reshape rstrip run set set_module setattr
    shape size slice sort sorted split squeeze ssl stale start startswith staticmethod stdout
    str strip struct sum super sys take time to_numpy transform tuple type types typing tz
    unique update value values view warn warnings where width write zeros zip
"""


def gather():
    """The names, to be held for as long as their place matters."""
    return [sys.intern(name) for name in _FREQUENT.split()]
