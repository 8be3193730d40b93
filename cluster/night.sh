#!/bin/sh
# Scores one night: sh cluster/night.sh STORE FLAG...
# STORE holds titles/, artworks/ and requests/night=DATE/; the choices go to STORE/predictions/night=DATE.
# FLAGs are jobs/score.py's: the model, the engines. NIGHT=2026-11-22 does that night; otherwise it is today's, in UTC.
# Run again, the same night goes on where it stopped.
set -eu
store=$1
shift
night=${NIGHT:-$(date -u +%F)}
cd "$(dirname "$0")/.."
previous=$(python cluster/last_night.py "$store/predictions" "$night")
exec python jobs/score.py --requests "$store/requests/night=$night" --titles "$store/titles" \
    --artworks "$store/artworks" --output "$store/predictions/night=$night" ${previous:+--previous "$previous"} \
    --decoding rank --explore epsilon --epsilon 0.05 --seed "$(echo "$night" | tr -d -)" "$@"
