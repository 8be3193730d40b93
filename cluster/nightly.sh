#!/bin/sh
# Runs the scoring job of one date: sh cluster/nightly.sh STORE FLAG...
# Reads STORE/titles/, STORE/artworks/ and STORE/requests/date=DATE/; writes STORE/predictions/date=DATE/.
# FLAGs are flags of jobs/score.py, such as the model and the number of engines.
# DATE is today in UTC; set RUN_DATE=2026-11-22 for another date. Run the same date again to resume it.
set -eu
store=$1
shift
date=${RUN_DATE:-$(date -u +%F)}
cd "$(dirname "$0")/.."
previous=$(python cluster/latest_run.py "$store/predictions" "$date")
exec python jobs/score.py --requests "$store/requests/date=$date" --titles "$store/titles" \
    --artworks "$store/artworks" --output "$store/predictions/date=$date" ${previous:+--previous "$previous"} \
    --decoding rank --explore epsilon --epsilon 0.05 --seed "$(echo "$date" | tr -d -)" "$@"
