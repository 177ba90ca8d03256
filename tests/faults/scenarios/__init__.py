"""The scenarios, a file for each part that is hurt. A file that is here is found."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
