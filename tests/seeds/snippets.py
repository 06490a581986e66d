"""Every snippet of the code interpreter guides, as it is written there, and what the guide says that
it gives; those in Java, Go and TypeScript of OpenSandbox's guide are in opensandbox.md. Small Python values; no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Snippet:
    """Cells that follow each other in one context."""

    name: str
    cells: tuple[str, ...]
    # Exact standard output of each cell; None: see `lines`.
    stdout: tuple[str | None, ...] = ("",)
    # Lines that the last cell must print, where the guide does not show all of it.
    lines: tuple[str, ...] = ()
    # Text of the last cell's value: exact, a number, or absent.
    text: str | None = None
    number: float | None = None
    # Cell texts inside the last value's HTML table.
    html: tuple[str, ...] = ()
    # Size in pixels of the picture that the last cell shows, where the guide sets one.
    png: tuple[int, int] | None = None
    # Files that must be there afterwards, with their first bytes.
    files: dict[str, bytes] = field(default_factory=dict)
    error: str | None = None
    language: str = "python"


PNG = b"\x89PNG\r\n\x1a\n"

SINE = """
import matplotlib.pyplot as plt
import numpy as np

x = np.linspace(0, 2 * np.pi, 100)
y = np.sin(x)

plt.plot(x, y)
plt.title('Sine Wave')
plt.savefig('sine.png')
plt.show()

print(f"Plotted {len(x)} points")
"""

LIST = """
x = [1, 2, 3, 4, 5]
print("List:", x)
x
"""

PEOPLE = """
import pandas as pd

df = pd.DataFrame({
    'name': ['Alice', 'Bob', 'Charlie'],
    'age': [25, 30, 35]
})

df
"""

PLOT = """
import matplotlib.pyplot as plt

plt.plot([1, 2, 3], [1, 4, 9])
plt.savefig('plot.png')
plt.show()
"""

JSON = """
import json

data = {'name': 'Alice', 'age': 25}
json.dumps(data)
"""

STEPS = """
import time

for i in range(5):
    print(f"Step {i}")
    time.sleep(1)
"""

MISSING_FILE = """
import pandas as pd

# This will fail
df = pd.read_csv('nonexistent.csv')
"""

SALES = r"""
import pandas as pd
import numpy as np

# Load and analyze data
data = {
    'product': ['A', 'B', 'C', 'D'],
    'sales': [100, 150, 200, 175],
    'cost': [50, 80, 120, 90]
}

df = pd.DataFrame(data)
df['profit'] = df['sales'] - df['cost']

print("Summary Statistics:")
print(df.describe())

print("\nTop product by profit:")
top = df.loc[df['profit'].idxmax()]
print(f"{top['product']}: ${top['profit']}")

df
"""

TRIGONOMETRY = """
import matplotlib.pyplot as plt
import numpy as np

# Generate data
x = np.linspace(0, 10, 100)
y1 = np.sin(x)
y2 = np.cos(x)

# Create plot
plt.figure(figsize=(10, 6))
plt.plot(x, y1, label='sin(x)')
plt.plot(x, y2, label='cos(x)')
plt.legend()
plt.title('Trigonometric Functions')
plt.grid(True)

plt.savefig('trig.png', dpi=150, bbox_inches='tight')
plt.show()
"""

REGRESSION = """
from sklearn.linear_model import LinearRegression
import numpy as np

# Sample data
X = np.array([[1], [2], [3], [4], [5]])
y = np.array([2, 4, 5, 4, 5])

# Train model
model = LinearRegression()
model.fit(X, y)

# Make predictions
X_test = np.array([[6], [7], [8]])
predictions = model.predict(X_test)

print("Predictions for 6, 7, 8:")
for x, pred in zip(X_test.flatten(), predictions):
    print(f"  {x}: {pred:.2f}")

model.score(X, y)
"""

CSV = """
name,age,city
Alice,25,NYC
Bob,30,LA
Charlie,35,Chicago
"""

CSV_CODE = """
import pandas as pd

df = pd.read_csv('/workspace/data.csv')

# Add computed column
df['age_group'] = df['age'].apply(
    lambda x: 'young' if x < 30 else 'adult'
)

print(f"Processed {len(df)} records")

# Save results
df.to_json('/workspace/output.json', orient='records')

df
"""

PAGE_TITLE = """
import requests
from bs4 import BeautifulSoup

response = requests.get('https://example.com')
soup = BeautifulSoup(response.text, 'html.parser')
title = soup.find('title').text

print(f"Page title: {title}")
title
"""

STATUS = """
import requests
response = requests.get('https://api.github.com')
print(f"Status: {response.status_code} ")
"""

JAVASCRIPT = """
const data = [1, 2, 3, 4, 5];
const sum = data.reduce((a, b) => a + b, 0);
const average = sum / data.length;

console.log(`Average: ${average}`);
average
"""

TYPESCRIPT = """
interface User {
  name: string;
  age: number;
}

const users: User[] = [
  { name: 'Alice', age: 25 },
  { name: 'Bob', age: 30 }
];

const avgAge = users.reduce((sum, u) => sum + u.age, 0) / users.length;
console.log(`Average age: ${avgAge}`);
avgAge
"""

# Those that need another interpreter than Python's.
CLOUDFLARE_NODE = [
    Snippet("javascript", (JAVASCRIPT,), ("Average: 3\n",), text="3", language="javascript"),
    Snippet(
        "typescript", (TYPESCRIPT,), ("Average age: 27.5\n",), text="27.5", language="typescript"
    ),
]

CROWNEST = [
    Snippet("contexts", ("value = 42", "print(value)"), ("", "42\n")),
    Snippet(
        "read the result", ("import pandas as pd; print(pd.__version__)",), (None,), lines=("3.",)
    ),
]

CLOUDFLARE = [
    Snippet(
        "quick start", (SINE,), ("Plotted 100 points\n",), png=(640, 480), files={"sine.png": PNG}
    ),
    Snippet("print alone", ("print(2 + 2)",), ("4\n",)),
    Snippet("text output", (LIST,), ("List: [1, 2, 3, 4, 5]\n",), text="[1, 2, 3, 4, 5]"),
    Snippet("html output", (PEOPLE,), html=("name", "age", "Alice", "25", "Charlie", "35")),
    Snippet("image output", (PLOT,), png=(640, 480), files={"plot.png": PNG}),
    Snippet("json output", (JSON,), text='{"name": "Alice", "age": 25}'),
    Snippet("contexts", ("x = 10", "y = x + 5", "print(x, y)"), ("", "", "10 15\n")),
    Snippet("error handling", (MISSING_FILE,), error="FileNotFoundError"),
    Snippet(
        "data analysis",
        (SALES,),
        (None,),
        lines=(
            "Summary Statistics:",
            "count    4.000000    4.000000   4.00000",
            "mean   156.250000   85.000000  71.25000",
            "max    200.000000  120.000000  85.00000",
            "Top product by profit:",
            "D: $85",
        ),
        html=("product", "profit", "A", "100", "85"),
    ),
    Snippet("visualization", (TRIGONOMETRY,), png=(1000, 600), files={"trig.png": PNG}),
    Snippet(
        "machine learning",
        (REGRESSION,),
        ("Predictions for 6, 7, 8:\n  6: 5.80\n  7: 6.40\n  8: 7.00\n",),
        number=0.6,
    ),
]

OPENSANDBOX = [
    Snippet(
        "quick start",
        ("import sys\nprint(sys.version)\nresult = 2 + 2\nresult",),
        (None,),
        lines=("3.11",),
        text="4",
    ),
    Snippet("default context", ("result = 2 + 2\nresult",), text="4"),
    Snippet("state", ("x = 42", "result = x\nresult"), ("", ""), text="42"),
    Snippet(
        "variables between runs",
        (
            "users = ['Alice', 'Bob', 'Charlie']\nprint(len(users))",
            "users.append('Dave')\nprint(users)\nresult = users\nresult",
        ),
        ("3\n", "['Alice', 'Bob', 'Charlie', 'Dave']\n"),
        text="['Alice', 'Bob', 'Charlie', 'Dave']",
    ),
    Snippet("python beside others", ("print('Running in Python')",), ("Running in Python\n",)),
    Snippet(
        "reused context",
        ("import numpy as np", "arr = np.array([1, 2, 3])", "print(arr.mean())"),
        ("", "", "2.0\n"),
    ),
    Snippet("one-off", ("print('Hello')",), ("Hello\n",)),
    Snippet("errors", ("print(undefined_variable)",), error="NameError"),
]
