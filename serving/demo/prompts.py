"""The bundled prompts: 36 different beginnings of Python functions.

The build truncates all of them to the same number of tokens, so every request costs the same.
"""

_TEXT = '''
def read_csv_rows(path, delimiter=","):
    """Yield each row of a delimited text file as a list of strings.

    Blank lines are skipped and the header is not treated in any special way.

def binary_search(items, target):
    """Return the index of target in the sorted list items, or -1 if it is absent.

    Runs in logarithmic time and never modifies the list.

def merge_intervals(intervals):
    """Merge overlapping closed intervals given as (start, end) pairs.

    The result is sorted by start, and no two intervals in it overlap.

class LRUCache:
    """A mapping of bounded size that forgets the entry used least recently."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.entries =

def word_frequencies(text):
    """Count how often each word occurs in text, ignoring case and punctuation.

    Returns a dictionary from the word to its count.
    """

def is_palindrome(text):
    """Tell whether text reads the same in both directions.

    Only letters and digits are compared, and case does not matter.
    """

def flatten(nested):
    """Flatten a list of lists of any depth into one list, from left to right.

    >>> flatten([1, [2, [3, 4]], 5])

async def fetch_all(session, urls, limit=10):
    """Fetch every url with at most limit requests in flight.

    The bodies are returned in the order of the urls.
    """

def retry(attempts=3, delay=0.5, exceptions=(OSError,)):
    """Decorator that calls a function again when it raises one of exceptions.

    The delay in seconds doubles after each attempt.

def matrix_multiply(left, right):
    """Multiply two matrices stored as lists of rows.

    Raises ValueError when the inner dimensions of the two do not agree.

def parse_config(path):
    """Read key = value lines from a file into a dictionary.

    Lines that start with # are comments, and surrounding blanks are removed.

def topological_order(graph):
    """Order the nodes of an acyclic graph so that each edge points forward.

    graph maps every node to the set of nodes that it depends on.

class Stack:
    """A last-in, first-out container built on a list."""

    def __init__(self):
        self._items = []

    def push(self, item):
        """Put item on

def levenshtein(first, second):
    """Return the edit distance between two strings.

    Insertions, deletions and substitutions of a single character cost one each.

def chunked(sequence, size):
    """Split a sequence into lists of the given size; the last may be shorter.

    >>> list(chunked([1, 2, 3, 4, 5], 2))

def sha256_of_file(path, block_size=65536):
    """Return the hexadecimal SHA-256 digest of a file.

    The file is read in blocks, so that a large one does not fill the memory.

def primes_below(limit):
    """List all prime numbers smaller than limit with the sieve of Eratosthenes.

    >>> primes_below(20)
    [2, 3, 5, 7,

def find_duplicates(folder):
    """Group the files below folder that have identical content.

    Sizes are compared first, since reading is much slower than looking.

def moving_average(values, window):
    """Return the mean of each run of window consecutive values.

    The result is shorter than values by window - 1 entries.

class Account:
    """A bank account whose balance never becomes negative."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def withdraw(

def roman_to_int(numeral):
    """Convert a Roman numeral to an integer.

    >>> roman_to_int("XIV")
    14
    >>> roman_to_int("MCMXC")

def shortest_path(graph, start, goal):
    """Find a path with the fewest edges from start to goal by breadth-first search.

    Returns None when the goal cannot be reached.

def format_duration(seconds):
    """Write a number of seconds as hours, minutes and seconds.

    >>> format_duration(3725)
    '1h 2m 5s'

def connect(host, port, timeout=10.0):
    """Open a TCP connection and return its reader and writer.

    Raises TimeoutError if the other side does not answer in timeout seconds.

def group_by(items, key):
    """Collect items into lists by the value of key(item).

    Groups appear in the order in which their first item was met.

def quicksort(values):
    """Return a new sorted list, leaving the original untouched.

    The pivot is the middle element, which keeps sorted input fast.
    """

def validate_email(address):
    """Check that an address has one @ sign and a domain with a dot in it.

    This is no proof that the mailbox exists.
    """

class Node:
    """A node of a binary search tree."""

    def __init__(self, value, left=None, right=None):
        self.value = value
        self.left = left

    def insert(self,

def transpose(rows):
    """Swap the rows and the columns of a table given as a list of lists.

    All rows must be of equal length, otherwise ValueError is raised.

def tail(path, lines=10, encoding="utf-8"):
    """Return the last lines of a text file without reading all of it.

    The file is searched backwards from its end in blocks.

def caesar_cipher(text, shift):
    """Replace each letter by the one that stands shift places further on.

    Other characters are kept, and upper case stays upper case.

def download(url, target, chunk_size=8192):
    """Save the resource at url to the file target, piece by piece.

    A partial file is removed when the connection breaks off.

def knapsack(weights, values, capacity):
    """Return the greatest total value whose weight fits into capacity.

    Each item can be taken at most once, and weights are integers.

def parse_log_line(line):
    """Split a line of a web server's log into address, time, request and status.

    Returns None for a line that does not have this form.

def partition(items, predicate):
    """Divide items into those that satisfy predicate and those that do not.

    Both lists keep the original order of their items.

def gcd(first, second):
    """Greatest common divisor of two integers by the algorithm of Euclid.

    The result is never negative, and gcd(0, 0) is defined as
'''


def _split(text: str) -> tuple[str, ...]:
    """Return the prompts in `text`; each line that starts with a definition begins one."""
    prompts: list[str] = []
    for line in text.strip("\n").splitlines():
        if line.startswith(("def ", "async def ", "class ")):
            prompts.append(line)
        else:
            prompts[-1] += "\n" + line
    return tuple(prompt.rstrip("\n") for prompt in prompts)


PROMPTS = _split(_TEXT)
