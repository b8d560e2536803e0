"""``make pictures``: regenerate the pictures of the documentation.

They are screenshots, in a real browser, of Airflow and the emulator as ``make up`` starts them, and plots of the tables in
``docs/performance.md``. ``--plots`` draws only the plots, which needs no Airflow.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from typing import TYPE_CHECKING, Literal

from PIL import Image
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import FloatRect

from airflow_pages import AirflowPages, ConnectionForm, PageError
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from emulator_pages import EmulatorPages
from local_browser import open_page, running_browser
from local_stack import ROOT, Stack, StackError, Stopped
from performance_tables import TableError
from plots import draw_batch, draw_scale, draw_waiting
from steps import Steps
from up import FIRST_DAG, start_tour

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from up import Tour

FOLDER = ROOT / "docs" / "pictures"
PERFORMANCE = ROOT / "docs" / "performance.md"
WIDTH, TALL, MARGIN = 1200, 700, 24  # CSS pixels
TOP: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": 450}
# Only the tasks of the gate: the first screen of the README must have room for more than a picture.
TASKS: FloatRect = {"x": 115, "y": 283, "width": 1036, "height": 214}
MAX_PICTURE_BYTES = 200_000
GATE = "request_approval"
TASK_SECONDS = 90
STEADY_SECONDS = 20

# As in docs/connection.md; the form shows the secret as dots.
FORM = ConnectionForm(
    "astro_zero_default",
    {
        "Host": "appcube.cn-north-4.huaweicloud.com",
        "Client id": "the client id",
        "Client secret": "the client secret",
    },
    {},
)


class Camera:
    """Take the screenshots.

    :param folder: the folder for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str, page: Page, part: FloatRect | None = None) -> None:
        """Take a screenshot of a page as soon as the page is steady.

        :param name: the name of the file, without its suffix.
        :param part: the part of the page to show; by default the whole page.
        :raises PageError: if the page does not become steady, or the file is too large.
        """
        deadline = time.monotonic() + STEADY_SECONDS
        before, seen = b"", _screenshot(page, part)
        while seen != before:
            if time.monotonic() > deadline:
                raise PageError(f"{name}: the page is not steady within {STEADY_SECONDS} s")
            time.sleep(0.3)
            before, seen = seen, _screenshot(page, part)
        target = io.BytesIO()
        with Image.open(io.BytesIO(seen)) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
        if target.tell() > MAX_PICTURE_BYTES:
            raise PageError(f"{name}: {target.tell():,} bytes, more than {MAX_PICTURE_BYTES:,}")
        (self._folder / f"{name}.png").write_bytes(target.getvalue())


def _screenshot(page: Page, part: FloatRect | None) -> bytes:
    return page.screenshot(clip=part) if part else page.screenshot(full_page=True)


def take_airflow(browser: Browser, tour: Tour, camera: Camera, steps: Steps) -> None:
    """Take the pictures of Airflow: the connection form, the waiting gate, and the gate after it has opened."""
    with open_page(browser, width=WIDTH, height=1000) as page, steps.step("The connection form"):
        dialog = AirflowPages(page, tour.airflow_url).fill_connection(FORM)
        dialog.get_by_role("heading").first.click()  # no field has the focus
        box = dialog.bounding_box()
        if box is None:
            raise PageError("the connection form is missing")
        camera.take("connection-form", page, _with_margin(box))
    with open_page(browser, width=WIDTH, height=TALL) as page:
        pages = AirflowPages(page, tour.airflow_url)
        with steps.step("The waiting gate"):
            pages.open_dag(FIRST_DAG, TASK_SECONDS)
            run_id = pages.trigger()
            pages.wait_for_task(GATE, "Deferred", TASK_SECONDS)
            pages.open_task(GATE)
            pages.open_details()
            camera.take("link", page, TOP)
            pages.open_run(FIRST_DAG, run_id)
            pages.show_graph()
            camera.take("graph-deferred", page)
        with steps.step("The gate after the approval"):
            people = EmulatorPages(page, tour.emulator.url)
            people.open_list()
            people.open_newest("PublishApproval")
            people.decide("approve")
            pages.wait_for_run(FIRST_DAG, run_id, "Success", TASK_SECONDS)
            pages.open_run(FIRST_DAG, run_id)
            pages.show_graph()
            camera.take("gated-run", page, TASKS)


def _with_margin(box: FloatRect) -> FloatRect:
    """Return a part of a page with a margin around it."""
    return {
        "x": box["x"] - MARGIN,
        "y": box["y"] - MARGIN,
        "width": box["width"] + 2 * MARGIN,
        "height": box["height"] + 2 * MARGIN,
    }


def take_emulator(browser: Browser, tour: Tour, camera: Camera, steps: Steps) -> None:
    """Take the pictures of the emulator's page, with instances in several states."""
    control = EmulatorControl(tour.emulator.url)
    control.start("AlwaysBroken", business_key="nightly-import")
    held = control.start("SupplierOnboarding", business_key="supplier-1042")
    control.move(held["id"], state="Suspended")
    control.start("SupplierOnboarding", {"supplier": "ACME", "country": "CN"}, "supplier-1043")
    asked = {"dataset": "sales_daily", "row_count": 18_204, "requested_by": "airflow"}
    waiting = control.start("PublishApproval", asked, "sales-2026-11-25", title="Publish sales_daily")
    names: dict[Literal["light", "dark"], str] = {"light": "emulator-page", "dark": "emulator-page-dark"}
    for scheme, name in names.items():
        with (
            steps.step(f"The emulator's page, {scheme}"),
            open_page(browser, width=WIDTH, height=620, scheme=scheme) as page,
        ):
            EmulatorPages(page, tour.emulator.url).open_list()
            camera.take(name, page)
    with (
        steps.step("An instance on the emulator's page"),
        open_page(browser, width=WIDTH, height=900) as page,
    ):
        people = EmulatorPages(page, tour.emulator.url)
        people.open_list()
        people.open_instance(waiting["id"])
        camera.take("emulator-instance", page)


def draw_plots(steps: Steps) -> None:
    """Draw the plots of the benchmarks.

    :raises TableError: if the page lacks a table that they need.
    """
    with steps.step("The plots"):
        text = PERFORMANCE.read_text(encoding="utf-8")
        for name, draw in (("waiting", draw_waiting), ("batch", draw_batch), ("scale", draw_scale)):
            (FOLDER / f"{name}.svg").write_text(draw(text), encoding="utf-8")


def main() -> int:
    """Regenerate all pictures, or only the plots."""
    parser = argparse.ArgumentParser(description="Regenerate the pictures of the documentation.")
    parser.add_argument("--plots", action="store_true", help="draw only the plots")
    options = parser.parse_args()
    steps = Steps()
    FOLDER.mkdir(exist_ok=True)
    try:
        draw_plots(steps)
        if not options.plots:
            with Stack() as stack:
                tour = start_tour(stack, steps)
                camera = Camera(FOLDER)
                with running_browser() as browser:
                    take_airflow(browser, tour, camera, steps)
                    take_emulator(browser, tour, camera, steps)
    except Stopped as stopped:
        return int(stopped.code or 0)
    except (StackError, BrowserError, PageError, TableError) as error:
        print(f"\nFailed at: {steps.current}\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
