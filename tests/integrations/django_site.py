"""The rest of a Django project around the page's ``calls/models.py``."""

import sqlalchemy as sa

from tests.integrations.programs import Folder


def write_settings(folder: Folder) -> None:
    url = sa.make_url(folder.url)
    if folder.is_sqlite:
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(url.database)}
    else:
        database = {"ENGINE": "django.db.backends.postgresql", "NAME": str(url.database), "USER": str(url.username)}
        database["HOST"] = str(url.query["host"])
    folder.write(
        "django/settings.py",
        f'INSTALLED_APPS = ["calls"]\nDATABASES = {{"default": {database}}}\nUSE_TZ = True\n'
        'DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"\n',
    )


def run(folder: Folder, code: str) -> str:
    """Run ``code`` in the project, as ``manage.py shell`` does."""
    setup = "import django; django.setup()\n"
    return folder.python("-c", setup + code, folder="django", DJANGO_SETTINGS_MODULE="settings")


def manage(folder: Folder, *arguments: str) -> str:
    return folder.python("-m", "django", *arguments, folder="django", DJANGO_SETTINGS_MODULE="settings", PYTHONPATH=".")
