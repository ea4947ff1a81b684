#!/bin/sh
# Writes the Russian manual pages of Debian's package manpages-ru as text files, one a page.
# Usage: sh corpus.sh FOLDER        needs: apt install manpages-ru groff
set -eu
mkdir -p "$1"
for page in /usr/share/man/ru/man*/*.gz; do
    # No hyphenation, no adjusted lines, a paragraph a line, no bold and no underline.
    zcat "$page" | sed '1i .hy 0\n.na' |
        GROFF_NO_SGR=1 groff -K utf8 -man -Tutf8 -P-c -P-b -P-u -P-o -rLL=400n 2>/dev/null |
        tr -s ' ' | sed 's/^ //' | cat -s > "$1/$(basename "$page" .gz).txt"
done
