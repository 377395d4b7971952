"""`fusionlib image OBSERVATION`: a picture of a stranger's observation, and what it says, in a folder."""

import argparse
import sys


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("fusionlib", description=__doc__)
    image = parser.add_subparsers(required=True, metavar="image").add_parser(
        "image", help="picture, FITS file, data against picture, and facts, of an observation"
    )
    image.add_argument("observation", help="UVFITS (needs ehtim), or CSV as the EHT releases it")
    image.add_argument(
        "--rule", default="safe", help="safe (default), average, torus, 'closed form', static, A, B, C, network"
    )
    image.add_argument("--flux", type=float, default=0.0, help="of the compact source [Jy]; by default as suggested")
    image.add_argument("--out", default="build/image", help="folder for the files (default build/image)")
    image.add_argument("--compare", action="store_true", help="every rule side by side, too")
    options = parser.parse_args(given)
    try:
        from fusionlib.paper import imaging
    except ImportError as error:
        print(f"fusionlib image needs {error.name}; in the checkout: pip install -e '.[paper]'", file=sys.stderr)
        return 1
    try:
        facts = imaging.write(
            options.observation, options.out, rule=options.rule, flux=options.flux, compare=options.compare
        )
    except ValueError as error:
        print(f"fusionlib image: {error}", file=sys.stderr)
        return 1
    print(imaging.summary(facts, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
