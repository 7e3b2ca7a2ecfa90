"""Write a model as ONNX: `python export.py [ckpt=…] [out=model.onnx] [data=… data.root=…]`."""

from fkp.runs.export import export

if __name__ == "__main__":
    export()
