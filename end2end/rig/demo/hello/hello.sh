#!/bin/sh
# Greets in every language that words.txt knows.
while read -r word; do
  echo "$word, world!"
done < /usr/share/words.txt
