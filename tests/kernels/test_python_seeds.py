"""The Python snippets of the product's two code interpreter guides give the results shown there."""

import json

import pytest

import test_python_display as display


def test_quick_start(context):
    run = context.run(
        "\nimport matplotlib.pyplot as plt\nimport numpy as np\n\nx = np.linspace(0, 2 * np.pi, 100)\n"
        "y = np.sin(x)\n\nplt.plot(x, y)\nplt.title('Sine Wave')\nplt.savefig('sine.png')\nplt.show()\n\n"
        'print(f"Plotted {len(x)} points")\n'
    )
    assert run.out == "Plotted 100 points\n"
    assert len(run.of("display")) == 1 and run.result is None and run.error is None
    assert context.run("import os; os.path.getsize('sine.png') > 1000").text == "True"


def test_print_gives_no_result(context):
    run = context.run("print(2 + 2)")
    assert (run.out, run.result, run.error) == ("4\n", None, None)


def test_text(context):
    run = context.run('\nx = [1, 2, 3, 4, 5]\nprint("List:", x)\nx\n')
    assert (run.out, run.text) == ("List: [1, 2, 3, 4, 5]\n", "[1, 2, 3, 4, 5]")


def test_html(context):
    run = context.run(
        "\nimport pandas as pd\n\ndf = pd.DataFrame({\n    'name': ['Alice', 'Bob', 'Charlie'],\n"
        "    'age': [25, 30, 35]\n})\n\ndf\n"
    )
    assert "<table" in run.result["text/html"] and "Charlie" in run.result["text/html"]


def test_image(context):
    run = context.run(
        "\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2, 3], [1, 4, 9])\nplt.savefig('plot.png')\nplt.show()\n"
    )
    assert len(run.of("display")) == 1
    display.png(run.of("display")[0]["data"]["image/png"])


def test_json(context):
    run = context.run("\nimport json\n\ndata = {'name': 'Alice', 'age': 25}\njson.dumps(data)\n")
    assert json.loads(run.text) == {"name": "Alice", "age": 25}


def test_contexts(context):
    context.run("x = 10")
    context.run("y = x + 5")
    assert context.run("print(x, y)").out == "10 15\n"


def test_streaming(context):
    context.begin('\nimport time\n\nfor i in range(3):\n    print(f"Step {i}")\n    time.sleep(0.2)\n')
    context.wait_output(b"Step 0\n")
    assert b"Step 2" not in bytes(context.pipes[context.stdout])
    assert context.finish().out == "Step 0\nStep 1\nStep 2\n"


def test_missing_file(context):
    run = context.run("\nimport pandas as pd\n\n# This will fail\ndf = pd.read_csv('nonexistent.csv')\n")
    assert run.error["name"] == "FileNotFoundError"
    assert "nonexistent.csv" in run.error["message"]
    assert run.error["line"] == 5
    assert run.error["traceback"][0].startswith("Traceback")


def test_data_analysis(context):
    run = context.run(
        "\nimport pandas as pd\nimport numpy as np\n\ndata = {\n    'product': ['A', 'B', 'C', 'D'],\n"
        "    'sales': [100, 150, 200, 175],\n    'cost': [50, 80, 120, 90]\n}\n\ndf = pd.DataFrame(data)\n"
        "df['profit'] = df['sales'] - df['cost']\n\nprint(\"Summary Statistics:\")\nprint(df.describe())\n\n"
        'print("\\nTop product by profit:")\ntop = df.loc[df[\'profit\'].idxmax()]\n'
        "print(f\"{top['product']}: ${top['profit']}\")\n\ndf\n"
    )
    assert run.out.endswith("\nTop product by profit:\nD: $85\n")
    assert "Summary Statistics:" in run.out and "<table" in run.result["text/html"]


def test_visualization(context):
    run = context.run(
        "\nimport matplotlib.pyplot as plt\nimport numpy as np\n\nx = np.linspace(0, 10, 100)\n"
        "y1 = np.sin(x)\ny2 = np.cos(x)\n\nplt.figure(figsize=(10, 6))\nplt.plot(x, y1, label='sin(x)')\n"
        "plt.plot(x, y2, label='cos(x)')\nplt.legend()\nplt.title('Trigonometric Functions')\nplt.grid(True)\n\n"
        "plt.savefig('trig.png', dpi=150, bbox_inches='tight')\nplt.show()\n"
    )
    assert len(run.of("display")) == 1
    assert len(display.png(run.of("display")[0]["data"]["image/png"])) > 10_000


def test_machine_learning(context):
    if context.run("import importlib.util as u; u.find_spec('sklearn') is None").text == "True":
        pytest.skip("scikit-learn is not installed")
    run = context.run(
        "\nfrom sklearn.linear_model import LinearRegression\nimport numpy as np\n\n"
        "X = np.array([[1], [2], [3], [4], [5]])\ny = np.array([2, 4, 5, 4, 5])\n\n"
        "model = LinearRegression()\nmodel.fit(X, y)\n\nX_test = np.array([[6], [7], [8]])\n"
        'predictions = model.predict(X_test)\n\nprint("Predictions for 6, 7, 8:")\n'
        'for x, pred in zip(X_test.flatten(), predictions):\n    print(f"  {x}: {pred:.2f}")\n\n'
        "model.score(X, y)\n"
    )
    assert run.out == "Predictions for 6, 7, 8:\n  6: 5.80\n  7: 6.40\n  8: 7.00\n"
    assert float(run.text.removeprefix("np.float64(").rstrip(")")) == pytest.approx(0.6)


def test_file_processing(context):
    context.run("open('data.csv', 'w').write('\\nname,age,city\\nAlice,25,NYC\\nBob,30,LA\\nCharlie,35,Chicago\\n')")
    run = context.run(
        "\nimport pandas as pd\n\ndf = pd.read_csv('data.csv')\n\n# Add computed column\n"
        "df['age_group'] = df['age'].apply(\n    lambda x: 'young' if x < 30 else 'adult'\n)\n\n"
        'print(f"Processed {len(df)} records")\n\n# Save results\n'
        "df.to_json('output.json', orient='records')\n\ndf\n"
    )
    assert run.out == "Processed 3 records\n"
    rows = json.loads(context.run("open('output.json').read()").text)
    assert [row["age_group"] for row in rows] == ["young", "adult", "adult"]


def test_installed_packages(context):
    run = context.run("import requests\nfrom bs4 import BeautifulSoup\nBeautifulSoup('<title>T</title>', 'html.parser').find('title').text")
    assert run.text == "T"


def test_sdk_quick_start(context):
    run = context.run("import sys \nprint(sys.version) \nresult = 2 + 2 \nresult")
    assert run.text == "4" and run.out.startswith("3.")


def test_sdk_state(context):
    assert context.run("users = ['Alice', 'Bob', 'Charlie'] \nprint(len(users))").out == "3\n"
    run = context.run("users.append('Dave') \nprint(users) \nresult = users \nresult")
    assert run.out == "['Alice', 'Bob', 'Charlie', 'Dave']\n"
    assert run.text == "['Alice', 'Bob', 'Charlie', 'Dave']"


def test_sdk_streaming(context):
    run = context.run("import time \nfor i in range(5): \n    print(i) \n    time.sleep(0.01)")
    assert run.out == "0\n1\n2\n3\n4\n"


def test_sdk_best_practices(context):
    context.run("import numpy as np")
    context.run("arr = np.array([1, 2, 3])")
    assert context.run("print(arr.mean())").out == "2.0\n"
    run = context.run("print(undefined_variable)")
    assert run.error["name"] == "NameError"
    assert run.error["message"] == "name 'undefined_variable' is not defined"


def test_sdk_installing_packages(context):
    run = context.run("import subprocess \nsubprocess.run([__import__('sys').executable, '-m', 'pip', '--version']).returncode")
    assert run.out.startswith("pip ") or run.err
